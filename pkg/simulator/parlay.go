package simulator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// postParlay takes over the hosts of all deployments and starts the job.
func (s *Server) postParlay(r *request) reply {
	var m wire.Map
	if err := json.Unmarshal(r.body, &m); err != nil {
		return s.failed("Error parsing the parlay actions", err.Error())
	}
	if !s.payForPOST(r) {
		return aborted()
	}
	return s.locked(r, func(mem *memory) reply {
		if err := s.importHosts(mem); err != nil {
			return s.failed("Error importing the hosts from deployment", err.Error())
		}
		if err := checkMap(mem, m); err != nil {
			return s.failed("Error performing the parlay actions", err.Error())
		}
		if mem.Logs == nil {
			mem.Logs = map[string]*wire.Log{}
		}
		j := &job{s: s, life: r.life, mem: mem}
		s.work.Go(func() { j.run(m.Deployments) })
		return s.ok(nil)
	})
}

// payForPOST keeps one of the server's cores busy for what the import of the
// deployments costs.
func (s *Server) payForPOST(r *request) bool {
	s.mu.Lock()
	cost := s.cfg.POSTCost * time.Duration(len(s.mem.Deployments))
	s.mu.Unlock()
	if cost == 0 {
		return true
	}
	select {
	case s.cores <- struct{}{}:
		defer func() { <-s.cores }()
		return r.life.sleep(cost)
	case <-r.life.ctx.Done():
		return false
	}
}

// importHosts adds the host of every deployment to those that parlay knows. They
// stay known until the server restarts.
func (s *Server) importHosts(m *memory) error {
	if len(m.Deployments) == 0 {
		return said("No deployment configurations found")
	}
	for _, d := range m.Deployments {
		if s.cfg.NoSSHKey {
			return said("Host [%s] has no key specified", d.Config.Address)
		}
		h := m.SSHHosts[d.Config.Address]
		if h == nil {
			h = &sshHost{}
			m.SSHHosts[d.Config.Address] = h
		}
		h.Imports++
		if h.User = d.Config.Username; h.User == "" {
			h.User = m.Global.Username
		}
	}
	return nil
}

func checkMap(mem *memory, m wire.Map) error {
	if len(m.Deployments) == 0 {
		return said("No Deployments in parlay map")
	}
	for _, d := range m.Deployments {
		for _, a := range d.Hosts {
			if mem.SSHHosts[a] == nil {
				return said("Host [%s] has no SSH credentials", a)
			}
		}
	}
	return nil
}

func (s *Server) getLog(r *request) reply {
	target := strings.ReplaceAll(r.id, "-", ".")
	return s.locked(r, func(m *memory) reply {
		const friendly = "Error reading Parlay Logs"
		if m.Logs == nil {
			return s.failed(friendly, "JSON Logging hasn't been enabled")
		}
		if l := m.Logs[target]; l != nil {
			return s.ok(l)
		}
		return s.failed(friendly, fmt.Sprintf("No Logs for Target [%s] exist", target))
	})
}

func (s *Server) deleteLog(r *request) reply {
	target := strings.ReplaceAll(r.id, "-", ".")
	return s.locked(r, func(m *memory) reply {
		if m.Logs == nil {
			return s.ok(nil)
		}
		if m.Logs[target] == nil {
			return s.failed("Error reading deleting logs",
				fmt.Sprintf("In-Memory logging for [%s] either doesn't exist or has already been deleted", target))
		}
		delete(m.Logs, target)
		return s.ok(nil)
	})
}

// job is what one POST /parlay started. It works on the memory of the process
// that started it; when that process is gone, so is the job.
type job struct {
	s    *Server
	life *life
	mem  *memory
}

// target is a host with its credentials.
type target struct {
	address, user string
}

// result is what one action gave on one host.
type result struct {
	address string
	output  string
	err     error
}

// run does one deployment of the map after the other; the first failure ends all.
func (j *job) run(deployments []wire.MapDeployment) {
	for _, d := range deployments {
		if d.Parallel {
			if !j.parallel(d) {
				return
			}
			continue
		}
		for _, a := range d.Hosts {
			j.state(a, wire.StateRunning)
			if !j.sequence(d.Actions, j.targets(a)[0]) {
				j.state(a, wire.StateFailed)
				return
			}
			j.state(a, wire.StateCompleted)
		}
	}
}

// targets are the hosts known for an address: one for every import, which is why
// a parallel action runs several times.
func (j *job) targets(address string) []target {
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	h := j.mem.SSHHosts[address]
	return slices.Repeat([]target{{address, h.User}}, h.Imports)
}

// state sets the state of an address' log, if it has one already.
func (j *job) state(address, state string) {
	j.change(func() {
		if l := j.mem.Logs[address]; l != nil {
			l.State = state
		}
	})
}

// entry adds an entry to a log, which comes into being with its first.
func (j *job) entry(address, task, output string, err error) {
	j.change(func() {
		l := j.mem.Logs[address]
		if l == nil {
			l = &wire.Log{State: wire.StateRunning}
			j.mem.Logs[address] = l
		}
		e := wire.LogEntry{Created: time.Now().UTC(), Task: task, Entry: output}
		if err != nil {
			e.Error = err.Error()
		}
		l.Entries = append(l.Entries, e)
	})
}

// change does something to the memory of a process that still lives.
func (j *job) change(f func()) {
	j.s.mu.Lock()
	defer j.s.mu.Unlock()
	if j.life.over() {
		return
	}
	f()
	j.s.save()
}

// sequence runs the actions on one host; false after a failure that counts.
func (j *job) sequence(actions []wire.Action, t target) bool {
	for _, a := range actions {
		switch a.Type {
		case wire.ActionCommand:
			res := j.command(a, t)
			if j.life.over() {
				return false
			}
			j.entry(t.address, a.Name, res.output, res.err)
			if res.err != nil && !a.IgnoreFail {
				return false
			}
		case "pkg", "key": // the real server does nothing, and says nothing
		case "upload", "download":
			j.entry(t.address, a.Name, "", errors.New("simulated plunder servers copy no files"))
			return false
		default:
			j.entry(t.address, a.Name, "", said("Action [%s] does not exist or has no plugin associated with it", a.Type))
			return false
		}
	}
	return true
}

// command runs one action on one host.
func (j *job) command(a wire.Action, t target) result {
	line, err := j.line(a)
	if err != nil {
		return result{address: t.address, err: err}
	}
	var res result
	if a.CommandLocal {
		res = j.local(line, t.address)
	} else {
		res = j.execute(a, line, []target{t})[0]
		if res.output = strings.TrimRight(res.output, "\r\n"); res.output == "" {
			res.output = wire.NoOutput
		}
	}
	if res.err == nil && a.CommandSaveAsKey != "" {
		j.change(func() { j.mem.Keys[a.CommandSaveAsKey] = res.output })
	}
	return res
}

// line is the command line as the host's login shell will get it.
func (j *job) line(a wire.Action) (string, error) {
	line := a.Command
	if a.KeyName != "" {
		j.s.mu.Lock()
		line = j.mem.Keys[a.KeyName]
		j.s.mu.Unlock()
		if line == "" {
			return "", said("Unable to find command under key '%s'", a.KeyName)
		}
	}
	if a.CommandSudo != "" {
		line = fmt.Sprintf("sudo -n -u %s %s", a.CommandSudo, line)
	}
	return line, nil
}

// local runs a line on the plunder server itself. No timeout applies, and the
// output of a failure is lost.
func (j *job) local(line, address string) result {
	out, err := j.s.runLocal(j.life.ctx, line, j.s.world.RunLocal)
	if err != nil {
		return result{address: address, err: err}
	}
	return result{address: address, output: strings.TrimRight(out, "\r\n")}
}

// execute runs a line on hosts, all at once, under the action's one time-out. What
// does not end in time goes on in the background.
func (j *job) execute(a wire.Action, line string, targets []target) []result {
	limit := time.Duration(a.Timeout) * time.Second
	if limit == 0 {
		limit = 8760 * time.Hour
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	done := make(chan result, len(targets))
	for _, t := range targets {
		j.s.work.Go(func() {
			out, err := j.s.ssh(j.life, a, line, t)
			done <- result{address: t.address, output: out, err: err}
		})
	}
	var results []result
	for i := range targets {
		select {
		case res := <-done:
			results = append(results, res)
		case <-timeout.C: // fires once: a second host that hangs has no limit
			results = append(results, result{address: targets[i].address, err: said("Command Timed out")})
		case <-j.life.ctx.Done():
			results = append(results, result{address: targets[i].address, err: context.Cause(j.life.ctx)})
		}
	}
	return results
}

// parallel runs each action on all hosts at once and stops at the first that
// fails. Nobody ever sets the state of the others' logs: they stay Running.
func (j *job) parallel(d wire.MapDeployment) bool {
	var targets []target
	for _, a := range d.Hosts {
		targets = append(targets, j.targets(a)...)
	}
	for _, a := range d.Actions {
		switch a.Type {
		case wire.ActionCommand:
		case "pkg", "key":
			continue
		default:
			return false
		}
		line, err := j.line(a)
		if err != nil {
			return false
		}
		for _, res := range j.execute(a, line, targets) {
			if j.life.over() {
				return false
			}
			j.entry(res.address, a.Name, res.output, res.err)
			if res.err != nil {
				j.state(res.address, wire.StateFailed)
				return false
			}
		}
	}
	return true
}
