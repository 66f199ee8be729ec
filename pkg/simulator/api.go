package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// What the server says beside an error.
const (
	errDeployment = "Error updating Deployment Configuration"
	errServer     = "Error updating Server Configuration"
)

// locked runs f with the server's memory, if this request's process still lives,
// and saves what became of it.
func (s *Server) locked(r *request, f func(m *memory) reply) reply {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.life.over() {
		return aborted()
	}
	s.advance(time.Now())
	rep := f(s.mem)
	if !strings.HasPrefix(r.function, "GET ") {
		s.save()
	}
	return rep
}

func (s *Server) getAPIs(*request) reply {
	var all []wire.Endpoint
	for _, e := range s.table {
		all = append(all, e.Endpoint)
	}
	return s.ok(all)
}

func (s *Server) getAPIFunction(r *request) reply {
	name, method := r.vars["function"], r.vars["method"]
	for _, e := range s.table {
		if e.Name == name && e.Method == method {
			return s.ok(e.Endpoint)
		}
	}
	return s.failed(fmt.Sprintf("Unable to find HTTP method [%s] for function [%s]", method, name), "Error looking up in API Server")
}

func (s *Server) getConfig(r *request) reply {
	return s.locked(r, func(m *memory) reply { return s.ok(m.Config) })
}

// postConfig replaces parts of the configuration. The real server takes YAML as
// well, and starts its services anew, so that DHCP forgets whom it has seen.
func (s *Server) postConfig(r *request) reply {
	return s.locked(r, func(m *memory) reply {
		if err := json.Unmarshal(r.body, &m.Config); err != nil {
			return s.failed(errServer, "Unable to parse configuration as either yaml or json")
		}
		m.Unleased, m.Leases = nil, nil
		return textual(s.ok(nil))
	})
}

// textual is an answer for which the real server names no type, and net/http
// guesses that it is text.
func textual(r reply) reply {
	r.contentType = "text/plain; charset=utf-8"
	return r
}

func (s *Server) postBootConfig(r *request) reply {
	return s.locked(r, func(m *memory) reply {
		var b wire.BootConfig
		if err := json.Unmarshal(r.body, &b); err != nil {
			return s.failed(errServer, err.Error())
		}
		// v0.5 adds a second one of the same name (recording last-deployment).
		if _, ok := m.Config.BootConfig(b.ConfigName); ok && s.cfg.Version != VersionV05 {
			return s.failed("Error duplicate Server Configuration", fmt.Sprintf("Boot Configuration [%s] already exists", b.ConfigName))
		}
		m.Config.BootConfigs = append(m.Config.BootConfigs, dialectBoot(s.cfg.Version, b))
		return textual(s.ok(nil))
	})
}

func (s *Server) deleteBootConfig(r *request) reply {
	return s.locked(r, func(m *memory) reply {
		i := slices.IndexFunc(m.Config.BootConfigs, func(b wire.BootConfig) bool { return b.ConfigName == r.id })
		if i < 0 {
			return s.failed(errDeployment, "Unable to find boot configuration "+r.id)
		}
		m.Config.BootConfigs = slices.Delete(slices.Clone(m.Config.BootConfigs), i, i+1)
		return s.ok(nil)
	})
}

func (s *Server) getDHCP(r *request) reply {
	return s.locked(r, func(m *memory) reply {
		switch r.id {
		case "leases":
			return s.ok(m.Leases)
		case "unleased":
			return s.ok(m.Unleased)
		}
		return s.ok(nil)
	})
}

func (s *Server) getDeployments(r *request) reply {
	return s.locked(r, func(m *memory) reply {
		return s.ok(wire.Deployments{GlobalConfig: m.Global, Deployments: m.Deployments})
	})
}

func (s *Server) getDeployment(r *request) reply {
	mac := strings.ReplaceAll(r.id, "-", ":")
	return s.locked(r, func(m *memory) reply {
		if i := m.find(mac); i >= 0 {
			return s.ok(m.Deployments[i])
		}
		return s.failed("", "Unable to find "+mac)
	})
}

// postDeployments replaces the whole set, global configuration included. The real
// server takes YAML as well.
func (s *Server) postDeployments(r *request) reply {
	return s.write(r, func(m *memory, _ []wire.Deployment) ([]wire.Deployment, error) {
		var all wire.Deployments
		if err := json.Unmarshal(r.body, &all); err != nil {
			return nil, said("Unable to parse configuration as either yaml or json\n %v", err)
		}
		if len(all.Deployments) > 0 {
			m.Global = all.GlobalConfig
		}
		return all.Deployments, nil
	})
}

// saidError is an error in plunder's own words.
type saidError string

func (e saidError) Error() string { return string(e) }

func said(format string, args ...any) error { return saidError(fmt.Sprintf(format, args...)) }

const (
	// errParse is what the server makes of a body that is not a deployment.
	errParse = saidError("Unable to parse deployment configuration")
	// errPanic stands for a handler that panics: nobody answers.
	errPanic = saidError("the handler panicked")
)

func (s *Server) postDeployment(r *request) reply {
	var d wire.Deployment
	if err := json.Unmarshal(r.body, &d); err != nil {
		return s.failed(errDeployment, errParse.Error())
	}
	return s.write(r, func(m *memory, set []wire.Deployment) ([]wire.Deployment, error) {
		if m.find(d.MAC) >= 0 {
			return nil, said("Duplicate entry for MAC address [%s]", d.MAC)
		}
		if !m.dropUnleased(d.MAC) {
			return nil, errPanic
		}
		return append(set, d), nil
	})
}

func (s *Server) patchDeployment(r *request) reply {
	if r.id == "global" {
		var global wire.HostConfig
		if err := json.Unmarshal(r.body, &global); err != nil {
			return s.failed("Error updating Global Configuration", errParse.Error())
		}
		return s.locked(r, func(m *memory) reply {
			m.Global = global
			return s.ok(nil)
		})
	}
	var d wire.Deployment
	if err := json.Unmarshal(r.body, &d); err != nil {
		return s.failed(errDeployment, errParse.Error())
	}
	mac := strings.ReplaceAll(r.id, "-", ":")
	if mac == "" {
		mac = d.MAC
	}
	return s.write(r, func(_ *memory, set []wire.Deployment) ([]wire.Deployment, error) {
		i := slices.IndexFunc(set, func(x wire.Deployment) bool { return x.MAC == mac })
		if i < 0 {
			return nil, said("Unable to find existing deployment for MAC address [%s]", mac)
		}
		return append(slices.Delete(set, i, i+1), d), nil // to the end of the list
	})
}

// remove deletes the first deployment that matches; name is the one in the error.
func (s *Server) remove(r *request, name string, matches func(wire.Deployment) bool) reply {
	return s.write(r, func(_ *memory, set []wire.Deployment) ([]wire.Deployment, error) {
		i := slices.IndexFunc(set, matches)
		if i < 0 {
			return nil, said("Unable to find existing deployment for Address [%s]", name)
		}
		return slices.Delete(set, i, i+1), nil
	})
}

func (s *Server) deleteDeploymentMAC(r *request) reply {
	mac := strings.ReplaceAll(r.id, "-", ":")
	return s.remove(r, mac, func(d wire.Deployment) bool { return d.MAC == mac })
}

func (s *Server) deleteDeploymentAddress(r *request) reply {
	ip := strings.ReplaceAll(r.id, "-", ".")
	return s.remove(r, ip, func(d wire.Deployment) bool { return d.Config.Address == ip })
}

// deleteDeployment tries the id as a MAC, then as an address.
func (s *Server) deleteDeployment(r *request) reply {
	if rep := s.deleteDeploymentMAC(r); rep.abort || rep.failure == "" {
		return rep
	}
	return s.deleteDeploymentAddress(r)
}

// write is a change of the set of deployments: read, change, complete, store. The
// real server does it without a lock, so that of two writes that overlap one is
// lost, and now and then the process dies: see Config.RaceWindow.
func (s *Server) write(r *request, change func(*memory, []wire.Deployment) ([]wire.Deployment, error)) reply {
	s.mu.Lock()
	if r.life.over() {
		s.mu.Unlock()
		return aborted()
	}
	set := slices.Clone(s.mem.Deployments)
	if s.cfg.RaceWindow > 0 {
		s.writers++
		if s.writers > 1 {
			s.overlaps++
			if n := s.cfg.RaceCrash; n > 0 && s.overlaps%n == 0 {
				s.crash(s.cfg.CrashDown)
				s.mu.Unlock()
				return aborted()
			}
		}
		s.mu.Unlock()
		alive := r.life.sleep(s.cfg.RaceWindow)
		s.mu.Lock()
		if !alive || r.life.over() {
			s.mu.Unlock()
			return aborted()
		}
		s.writers--
	}
	defer s.mu.Unlock()
	s.advance(time.Now())
	defer s.save()
	set, err := change(s.mem, set)
	if err == nil {
		err = s.mem.rebuild(s.cfg.Version, set)
	}
	switch {
	case err == nil:
		s.inviteStrangers()
		return s.ok(nil)
	case errors.Is(err, errPanic):
		return aborted()
	default:
		return s.failed(errDeployment, err.Error())
	}
}
