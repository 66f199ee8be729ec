package simulator

import (
	"slices"
	"time"
)

// What a machine boots.
const (
	ToldDisk      = "disk"
	ToldLoop      = "loop"      // the server's script that has it boot again
	ToldInstaller = "installer" // with the answers for it
	ToldQuestion  = "question"  // an installer without answers
	ToldNothing   = "nothing"   // no script, or no DHCP server, and nothing on the disk
)

// Boot is one boot of a machine, or many that were alike.
type Boot struct {
	Told     string    // one of the constants
	At, Last time.Time // the first and the last of them
	Times    int
}

// maxBoots is how many entries a machine's log has at most.
const maxBoots = 256

// BootLog is what the machine with this MAC booted so far, oldest first. Boots in a row that
// were alike are one entry.
func (s *Server) BootLog(mac string) []Boot {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.advance(time.Now())
	for _, m := range s.machines {
		if m.MAC == mac {
			return slices.Clone(m.Log)
		}
	}
	return nil
}

// booted counts boots of a machine, of which the first was at a time and the last at another.
func (m *machine) booted(told string, at, last time.Time, times int) {
	m.Boots += times
	if n := len(m.Log); n > 0 && m.Log[n-1].Told == told {
		m.Log[n-1].Last = last
		m.Log[n-1].Times += times
		return
	}
	if len(m.Log) >= maxBoots {
		m.Log = slices.Clone(m.Log[maxBoots/2:])
	}
	m.Log = append(m.Log, Boot{Told: told, At: at, Last: last, Times: times})
}
