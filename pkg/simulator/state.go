package simulator

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
)

// stateFormat is the number of the file format; it changes when old files can't be
// read any more.
const stateFormat = 1

// savedRack is the content of a state file.
type savedRack struct {
	Format    int
	Saved     time.Time
	Memory    *memory
	DownUntil time.Time
	Machines  []savedMachine
	Strangers map[string]host.Snapshot
	// Faults counts by the fault's text how often it happened.
	Faults map[string]int
}

type savedMachine struct {
	machine

	Host json.RawMessage `json:",omitempty"`
	// Drives are the disks of a machine without a host; else they are in there.
	Drives []host.SavedDrive `json:",omitempty"`
}

// saver writes the rack to a file after every change. All of it is guarded by
// Server.mu.
type saver struct {
	path  string // "" saves nothing
	wrote bool
	err   error                // the first
	hosts map[string]savedHost // by MAC: snapshots that are still true
}

// savedHost is a snapshot of a host, and which revision of what it shares with other
// hosts is in it.
type savedHost struct {
	snapshot json.RawMessage
	revision int64
}

// touch says that the host of a machine has changed since its last snapshot.
func (v *saver) touch(mac string) { delete(v.hosts, mac) }

// Open is Load of cfg.StateFile if that exists, and New if it does not. From then
// on the file follows every change, so that a rack survives the program: machines
// go on looping and installing between two runs, only jobs do not. Two programs
// must not write one file at the same time.
func Open(cfg Config) (*Server, error) {
	if cfg.StateFile == "" {
		return New(cfg), nil
	}
	s, err := Load(cfg, cfg.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		s = New(cfg)
		return s, s.Save(cfg.StateFile)
	}
	return s, err
}

// Load starts a server with the rack that was saved to a file. cfg says how it
// behaves from now on; which machines there are is what the file says.
func Load(cfg Config, path string) (*Server, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("simulated rack: %w", err)
	}
	var saved savedRack
	if err := json.Unmarshal(data, &saved); err != nil {
		return nil, fmt.Errorf("simulated rack %s: %w; delete the file to begin with a new rack", path, err)
	}
	if saved.Format != stateFormat || saved.Memory == nil {
		return nil, fmt.Errorf("simulated rack %s: format %d, this program knows %d; delete the file to begin with a new rack", path, saved.Format, stateFormat)
	}
	s := newServer(cfg)
	s.mem, s.downUntil = saved.Memory, saved.DownUntil
	// The jobs in flight ended with the process that saved them. A log that went on
	// saying "Running" would have a client wait for a job that nobody runs.
	maps.DeleteFunc(s.mem.Logs, func(_ string, l *wire.Log) bool { return l.State == wire.StateRunning })
	s.saving.hosts = map[string]savedHost{}
	for _, sm := range saved.Machines {
		m := sm.machine
		if len(sm.Host) > 0 {
			var snap host.Snapshot
			if err := json.Unmarshal(sm.Host, &snap); err != nil {
				return nil, fmt.Errorf("simulated rack %s: machine %s: %w; delete the file to begin with a new rack", path, m.MAC, err)
			}
			m.host = host.Restore(snap, s.world)
			m.drives = m.host.Drives()
		}
		for _, d := range sm.Drives {
			m.drives = append(m.drives, d.Drive())
		}
		s.machines = append(s.machines, &m)
		if m.host != nil {
			s.watch(&m)
		}
		if len(sm.Host) > 0 {
			s.saving.hosts[m.MAC] = savedHost{sm.Host, m.host.Revision()}
		}
	}
	for a, snap := range saved.Strangers {
		s.strangers[a] = host.Restore(snap, s.world)
		s.strangers[a].TakeAddress()
		s.guests++
	}
	for _, f := range s.faults {
		f.used = saved.Faults[f.String()]
	}
	return s, nil
}

// Save writes the rack to a file that only its owner can read: it holds what the
// hosts hold, keys and passwords included.
func (s *Server) Save(path string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	return s.write0600(path)
}

// save writes the state file, if there is one to be written. Call with mu held.
func (s *Server) save() {
	if s.saving.path == "" {
		return
	}
	s.saving.wrote = true
	if err := s.write0600(s.saving.path); err != nil && s.saving.err == nil {
		s.saving.err = err
	}
}

func (s *Server) write0600(path string) error {
	saved := savedRack{
		Format: stateFormat, Saved: time.Now(), Memory: s.mem, DownUntil: s.downUntil,
		Strangers: map[string]host.Snapshot{}, Faults: map[string]int{},
	}
	if s.saving.hosts == nil {
		s.saving.hosts = map[string]savedHost{}
	}
	for _, m := range s.machines {
		sm := savedMachine{machine: *m}
		if m.host != nil {
			last, ok := s.saving.hosts[m.MAC]
			if revision := m.host.Revision(); !ok || last.revision != revision {
				var err error
				last.revision = revision
				if last.snapshot, err = json.Marshal(m.host.Snapshot()); err != nil {
					return fmt.Errorf("simulated rack: machine %s: %w", m.MAC, err)
				}
				s.saving.hosts[m.MAC] = last
			}
			sm.Host = last.snapshot
		} else {
			for _, d := range m.drives {
				sm.Drives = append(sm.Drives, d.Snapshot())
			}
		}
		saved.Machines = append(saved.Machines, sm)
	}
	for a, h := range s.strangers {
		saved.Strangers[a] = h.Snapshot()
	}
	s.faultMu.Lock()
	for _, f := range s.faults {
		saved.Faults[f.String()] += f.used
	}
	s.faultMu.Unlock()
	data, err := json.Marshal(saved)
	if err != nil {
		return fmt.Errorf("simulated rack: %w", err)
	}
	return writeFile(path, data)
}

// writeFile replaces a file at once; mode 0600.
func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("simulated rack: %w", err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("simulated rack: %w", errors.Join(err, os.Remove(f.Name())))
	}
	return nil
}
