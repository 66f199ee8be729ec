package translate_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// TestWipeByProgramsThatLie: programs that say that they have wiped a disk. What they left
// is found and there is no reset; who is asked for every byte leaves none.
func TestWipeByProgramsThatLie(t *testing.T) {
	const size = 1 << 36
	lost := &host.Trouble{Lost: true}
	for name, tt := range map[string]struct {
		mode    capi.WipeMode
		step    string // pattern of host.Step.Is
		trouble *host.Trouble
		proved  bool
	}{
		"nothing wrong: quick":           {capi.WipeQuick, "", nil, true},
		"nothing wrong: zero":            {capi.WipeZero, "", nil, true},
		"nothing wrong: discard":         {capi.WipeDiscard, "", nil, true},
		"nothing wrong: secure":          {capi.WipeSecure, "", nil, true},
		"half of the files stay":         {capi.WipeZero, "disk:sda", &host.Trouble{Lost: true, From: size / 4, To: size / 4 * 3}, false},
		"half of the files stay, secure": {capi.WipeSecure, "disk:sda", &host.Trouble{Lost: true, From: size / 4, To: size / 4 * 3}, false},
		"blkdiscard does nothing":        {capi.WipeDiscard, "run:blkdiscard", lost, false},
		"the erasure does nothing":       {capi.WipeSecure, "run:hdparm --security-erase", lost, false},
		"dd does nothing":                {capi.WipeQuick, "run:dd of=/dev/sda", lost, false},
		"wipefs does nothing":            {capi.WipeQuick, "run:wipefs", lost, true}, // the rest is enough
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRack(t)
				h := r.add("10.0.0.1", "host-1", func(c *host.Config) { c.Disk = []host.DiskConfig{{Name: "sda", Bytes: size}} })
				if tt.step != "" {
					h.Sabotage(func(s host.Step) *host.Trouble {
						if s.Is(tt.step) {
							return tt.trouble
						}
						return nil
					})
				}
				o := translate.WipeOrder{Disks: r.facts("10.0.0.1").Disks, Mode: tt.mode, Delay: 10 * time.Second}
				m, err := translate.Wipe("j", r.target("10.0.0.1"), o)
				_, done, err := translate.ReadWipe(r.post(m, err), "j", o)
				if !done || (err == nil) != tt.proved {
					t.Errorf("done %v, err %v; proved must be %v", done, err, tt.proved)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				left := h.Drives()[0].Left()
				if h.Up() == tt.proved || tt.proved && (!h.Wiped() || tt.mode != capi.WipeQuick && left != 0) {
					t.Errorf("up %v, wiped %v, %d bytes left", h.Up(), h.Wiped(), left)
				}
			})
		})
	}
}
