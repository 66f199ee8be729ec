package translate_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/simulator/host"
	"github.com/plunder-app/capplunder/pkg/translate"
)

func TestWipeOnHost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		h := r.add("10.0.0.1", "host-1", func(c *host.Config) {
			c.Disk = []host.DiskConfig{{Name: "sda", Bytes: 480103981056}, {Name: "sdb", Bytes: 1 << 34}}
		})
		var resetAt time.Time
		h.OnReset(func() { resetAt = time.Now() })
		disks := r.facts("10.0.0.1").Disks
		start := time.Now()
		m, err := translate.Wipe("j", r.target("10.0.0.1"), translate.WipeOrder{Disks: disks, Delay: 10 * time.Second})
		l := r.must(r.post(m, err))
		if _, done, err := translate.ReadWipe(l, "j", translate.WipeOrder{Disks: disks}); !done || err != nil {
			t.Errorf("done %v, err %v", done, err)
		}
		if !h.Wiped() || !h.Up() {
			t.Errorf("wiped %v, up %v right after the job", h.Wiped(), h.Up())
		}
		if _, done, err := translate.ReadWipe(l, "j", translate.WipeOrder{Disks: append(disks, capi.Disk{Device: "/dev/sdc", Bytes: 512})}); !done || err == nil {
			t.Error("a disk that was not wiped must not be believed")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if h.Up() || resetAt.Sub(start) != 10*time.Second {
			t.Errorf("up %v, reset after %v", h.Up(), resetAt.Sub(start))
		}
	})
}

// Every mode on hosts of the simulator, whose disks have a cache and forget what was not
// written through.
func TestWipeModesOnHost(t *testing.T) {
	for _, profile := range []string{host.ProfileNoble, host.ProfileBookworm} {
		for _, tt := range []struct {
			mode capi.WipeMode
			disk host.DiskConfig
			want string // of the error
		}{
			{capi.WipeQuick, host.DiskConfig{Name: "sda"}, ""},
			{capi.WipeZero, host.DiskConfig{Name: "sda", Rotational: true}, ""},
			{capi.WipeDiscard, host.DiskConfig{Name: "nvme0n1"}, ""},
			{capi.WipeDiscard, host.DiskConfig{Name: "sda", Rotational: true}, "it cannot discard blocks"},
			{capi.WipeSecure, host.DiskConfig{Name: "sda"}, ""},
			{capi.WipeSecure, host.DiskConfig{Name: "sda", Frozen: true}, "(frozen)"},
			{capi.WipeSecure, host.DiskConfig{Name: "sda", NoErase: true}, "it cannot erase itself"},
			{capi.WipeSecure, host.DiskConfig{Name: "nvme0n1"}, ""},
			{capi.WipeSecure, host.DiskConfig{Name: "vda"}, "it cannot erase itself"},
		} {
			t.Run(fmt.Sprintf("%s %s %s %s", profile, tt.mode, tt.disk.Name, tt.want), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					r := newRack(t)
					tt.disk.Bytes = 1 << 36
					h := r.add("10.0.0.1", "host-1", func(c *host.Config) { c.Profile, c.Disk = profile, []host.DiskConfig{tt.disk} })
					if tt.mode == capi.WipeSecure {
						res := h.Run(t.Context(), host.Command{Line: "sudo -n -u root sh -c 'apt-get -y update; apt-get -y install hdparm nvme-cli'", Combined: true})
						if res.Exit != 0 {
							t.Fatalf("%+v", res)
						}
					}
					o := translate.WipeOrder{Disks: r.facts("10.0.0.1").Disks, Mode: tt.mode, Delay: 10 * time.Second}
					m, err := translate.Wipe("j", r.target("10.0.0.1"), o)
					l := r.post(m, err)
					got, done, err := translate.ReadWipe(l, "j", o)
					if tt.want == "" {
						r.must(l)
					}
					if !done || (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
						t.Fatalf("done %v, err %v", done, err)
					}
					time.Sleep(time.Hour)
					synctest.Wait()
					if h.Up() != (tt.want != "") || h.Wiped() != (tt.want == "") || err == nil && got[0].Method != tt.mode {
						t.Errorf("up %v, wiped %v, %+v", h.Up(), h.Wiped(), got)
					}
				})
			})
		}
	}
}

func TestWipeRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		h := r.add("10.0.0.1", "host-1", func(c *host.Config) {
			c.Disk = []host.DiskConfig{{Name: "sda", Bytes: 1 << 34}, {Name: "sdb", Bytes: 1 << 30, USB: true}, {Name: "sdc", Bytes: 1 << 30, Removable: true}, {Name: "sdd", Bytes: 1 << 30, ReadOnly: true}}
		})
		for _, tt := range []struct {
			disk capi.Disk
			want string
		}{
			{capi.Disk{Device: "/dev/sda", Bytes: 1 << 33}, "reason=size"},
			{capi.Disk{Device: "/dev/sdb", Bytes: 1 << 30}, "reason=usb"},
			{capi.Disk{Device: "/dev/sdc", Bytes: 1 << 30}, "reason=removable"},
			{capi.Disk{Device: "/dev/sdd", Bytes: 1 << 30}, "reason=readonly"},
			{capi.Disk{Device: "/dev/sde", Bytes: 1 << 30}, "reason=missing"},
			{capi.Disk{Device: "/dev/null", Bytes: 1 << 30}, "reason=missing"},
		} {
			m, err := translate.Wipe("j", r.target("10.0.0.1"), translate.WipeOrder{Disks: []capi.Disk{tt.disk}, Delay: 10 * time.Second})
			l := r.post(m, err)
			if _, _, err := translate.ReadWipe(l, "j", translate.WipeOrder{Disks: []capi.Disk{tt.disk}}); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %v, want %s", tt.disk.Device, err, tt.want)
			}
		}
		time.Sleep(time.Hour)
		if h.Wiped() || !h.Up() {
			t.Errorf("wiped %v, up %v", h.Wiped(), h.Up())
		}
	})
}

// A wipe that the platters did not get is not proved, however clean the cache looks, and
// the machine is not reset.
func TestWipeOfDisksThatLie(t *testing.T) {
	const size = 1 << 34
	for name, tt := range map[string]struct {
		mode    capi.WipeMode
		trouble host.Trouble
		want    string
	}{
		"all is lost":             {capi.WipeQuick, host.Trouble{Lost: true}, "of 16777216 bytes at 0 only"},
		"the backup table stays":  {capi.WipeQuick, host.Trouble{Lost: true, From: size - 512}, fmt.Sprintf("of 1048576 bytes at %d only", size-1<<20)},
		"the file system stays":   {capi.WipeQuick, host.Trouble{Lost: true, From: 1 << 20, To: 1 << 29}, "are zero"},
		"errors":                  {capi.WipeQuick, host.Trouble{}, "writing at "},
		"zeros are lost":          {capi.WipeZero, host.Trouble{Lost: true}, "are zero"},
		"discard does nothing":    {capi.WipeDiscard, host.Trouble{Lost: true}, "are zero"},
		"errors at the very end":  {capi.WipeZero, host.Trouble{From: size - 4096}, "writing at "},
		"an error when discarded": {capi.WipeDiscard, host.Trouble{}, "blkdiscard failed"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newRack(t)
				h := r.add("10.0.0.1", "host-1", func(c *host.Config) { c.Disk = []host.DiskConfig{{Name: "sda", Bytes: size}} })
				o := translate.WipeOrder{Disks: r.facts("10.0.0.1").Disks, Mode: tt.mode, Delay: 10 * time.Second}
				h.Sabotage(func(s host.Step) *host.Trouble {
					if s.Is("disk:sda") {
						return &tt.trouble
					}
					return nil
				})
				m, err := translate.Wipe("j", r.target("10.0.0.1"), o)
				l := r.post(m, err)
				got, done, err := translate.ReadWipe(l, "j", o)
				if !done || err == nil || got != nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "/dev/sda") {
					t.Errorf("done %v, err %v, want %q\n%+v", done, err, tt.want, l)
				}
				time.Sleep(time.Hour)
				synctest.Wait()
				if !h.Up() {
					t.Error("the machine was reset")
				}
			})
		})
	}
}

// Another disk of the same size in the place of the one that was looked at is refused.
func TestWipeOfAnotherDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRack(t)
		h := r.add("10.0.0.1", "host-1", func(c *host.Config) {
			c.Disk = []host.DiskConfig{{Name: "sda", Bytes: 1 << 34}, {Name: "nvme0n1", Bytes: 1 << 34}}
		})
		o := translate.WipeOrder{Disks: r.facts("10.0.0.1").Disks, Delay: 10 * time.Second}
		if !h.SwapDrive("nvme0n1") {
			t.Fatal("no such disk")
		}
		m, err := translate.Wipe("j", r.target("10.0.0.1"), o)
		_, done, err2 := translate.ReadWipe(r.post(m, err), "j", o)
		if !done || err2 == nil || !strings.Contains(err2.Error(), "disk /dev/nvme0n1: it is another disk") {
			t.Errorf("done %v, err %v", done, err2)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if writes := r.world.Wipes(); h.Wiped() || !h.Up() || len(writes) > 0 {
			t.Errorf("wiped %v, up %v, %+v", h.Wiped(), h.Up(), writes)
		}
	})
}

// A live system with busybox and nothing else is looked at, and wiped.
func TestWipeOnBusybox(t *testing.T) {
	for _, mode := range []capi.WipeMode{capi.WipeQuick, capi.WipeZero} {
		synctest.Test(t, func(t *testing.T) {
			r := newRack(t)
			h := r.add("10.0.0.1", "host-1", func(c *host.Config) {
				c.Profile, c.User, c.Disk = host.ProfileBusybox, "root", []host.DiskConfig{{Name: "sda", Bytes: 1 << 34}}
			})
			m, err := translate.HostProbe("look", []string{"10.0.0.1"}, true)
			if err != nil {
				t.Fatal(err)
			}
			f, done, err := translate.ReadHostProbe(r.run(m)["10.0.0.1"], "look")
			if err != nil || !done || len(f.Disks) != 1 || f.Disks[0].WWN == "" || f.Disks[0].Serial == "" || f.Disks[0].Content == "" || f.Disks[0].Content == "?" {
				t.Fatalf("%+v, done %v, err %v", f, done, err)
			}
			target := r.target("10.0.0.1")
			target.Root = true
			o := translate.WipeOrder{Disks: f.Disks, Mode: mode, Delay: 10 * time.Second}
			m, err = translate.Wipe("j", target, o)
			if _, done, err = translate.ReadWipe(r.must(r.post(m, err)), "j", o); err != nil || !done {
				t.Fatalf("done %v, err %v", done, err)
			}
			time.Sleep(time.Hour)
			synctest.Wait()
			if h.Up() || !h.Wiped() {
				t.Errorf("up %v, wiped %v", h.Up(), h.Wiped())
			}
		})
	}
}
