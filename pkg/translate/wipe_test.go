package translate_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// wipeScript is the script of a wipe as it is sent.
func wipeScript(t *testing.T, o translate.WipeOrder, root bool) string {
	t.Helper()
	target := benchTarget()
	target.Root = root
	m, err := translate.Wipe("job", target, o)
	if err != nil {
		t.Fatal(err)
	}
	return m.Deployments[0].Actions[1].Command
}

// dropbear, which small hosts have, refuses commands of 9,000 bytes and more.
func TestCommandsFitDropbear(t *testing.T) {
	const longest, sudo = 9000, len("sudo -n -u root ")
	o := translate.WipeOrder{Delay: 10 * time.Second}
	for i := range 24 {
		o.Disks = append(o.Disks, capi.Disk{Device: fmt.Sprintf("/dev/sd%c", 'a'+i), Bytes: 20_000_588_955_648, WWN: fmt.Sprintf("naa.%032x", i), Serial: fmt.Sprintf("SERIAL%014d", i)})
	}
	for _, o.Mode = range capi.WipeModes() {
		if n := len(wipeScript(t, o, false)) + sudo; n >= longest {
			t.Errorf("%s: %d bytes", o.Mode, n)
		}
	}
	m, err := translate.HostProbe("job", []string{"10.0.0.1"}, true)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(m.Deployments[0].Actions[0].Command); n >= longest {
		t.Errorf("probe: %d bytes", n)
	}
}

func TestWipeOrders(t *testing.T) {
	good := capi.Disk{Device: "/dev/sda", Bytes: 1 << 30, WWN: "naa.1", Serial: "S 1", ID: "naa.1"}
	for name, tt := range map[string]struct {
		change func(*capi.Disk)
		want   string // in DISKS, or of the error
		mode   capi.WipeMode
	}{
		"all known":       {func(*capi.Disk) {}, `DISKS="/dev/sda,1073741824,naa.1,S_1"`, ""},
		"an older record": {func(d *capi.Disk) { d.WWN, d.Serial = "", "" }, `DISKS="/dev/sda,1073741824,naa.1"`, ""},
		"anonymous":       {func(d *capi.Disk) { d.WWN, d.Serial, d.ID = "", "", "-" }, `DISKS="/dev/sda,1073741824"`, ""},
		"both the same":   {func(d *capi.Disk) { d.Serial = d.WWN }, `DISKS="/dev/sda,1073741824,naa.1"`, ""},
		"a hostile one":   {func(d *capi.Disk) { d.WWN = `x";reboot;$(id)` + "`,\n" }, `DISKS="/dev/sda,1073741824,xrebootid,S_1"`, ""},
		"device":          {func(d *capi.Disk) { d.Device = "/dev/sda;reboot" }, "error: disk", ""},
		"no size":         {func(d *capi.Disk) { d.Bytes = 0 }, "error: disk /dev/sda has no size", ""},
		"a small size":    {func(d *capi.Disk) { d.Bytes = 512 }, "error: disk /dev/sda has no size", ""},
		"an odd size":     {func(d *capi.Disk) { d.Bytes++ }, "error: disk /dev/sda has no size", ""},
		"a long identity": {func(d *capi.Disk) { d.Serial = strings.Repeat("x", 129) }, "error: identity of disk /dev/sda", ""},
		"no mode":         {func(*capi.Disk) {}, `error: no way to wipe is called "fast"`, "fast"},
	} {
		d := good
		tt.change(&d)
		m, err := translate.Wipe("job", benchTarget(), translate.WipeOrder{Disks: []capi.Disk{d}, Mode: tt.mode})
		got := fmt.Sprintf("error: %v", err)
		if err == nil {
			got = m.Deployments[0].Actions[1].Command
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q is not in %.300s", name, tt.want, got)
		}
	}
	if _, err := translate.Wipe("job", benchTarget(), translate.WipeOrder{}); err == nil {
		t.Error("an order without disks was taken")
	}
}

func TestLimit(t *testing.T) {
	disks := []capi.Disk{{Bytes: 300 << 30}, {Bytes: 300 << 30}}
	for mode, want := range map[capi.WipeMode]time.Duration{
		"": 10 * time.Minute, capi.WipeQuick: 10 * time.Minute, capi.WipeDiscard: 20 * time.Minute,
		capi.WipeZero: 10*time.Minute + 20480*time.Second, capi.WipeSecure: 10*time.Minute + 20480*time.Second,
	} {
		if got := (translate.WipeOrder{Disks: disks, Mode: mode}).Limit(); got != want {
			t.Errorf("%q: %v, want %v", mode, got, want)
		}
	}
}

func TestRefuseWipe(t *testing.T) {
	if err := translate.RefuseWipe("preseed", translate.Facts{System: "Linux"}); err != nil {
		t.Error(err)
	}
	for _, err := range []error{translate.RefuseWipe("vsphere", translate.Facts{}), translate.RefuseWipe("", translate.Facts{System: "VMkernel"})} {
		if !errors.Is(err, translate.ErrESXi) || !strings.Contains(err.Error(), "--force-remove") {
			t.Error(err)
		}
	}
}

// answered is what a host prints that wiped the disks of an order, each with one
// partition.
func answered(job string, o translate.WipeOrder) string {
	// The generator, once more and by itself: it must never change, or older jobs could
	// not be proved any more.
	sum := sha256.Sum256([]byte(job))
	x := (int64(sum[0])<<24 | int64(sum[1])<<16 | int64(sum[2])<<8 | int64(sum[3])) >> 1
	var b strings.Builder
	for _, d := range o.Disks {
		const head, edge = 16 << 20, 1 << 20
		at := [][2]int64{{0, head}, {d.Bytes - edge, edge}, {32 << 20, edge}, {48 << 20, edge}}
		unit, count := int64(1<<20), 16
		if o.Mode == capi.WipeQuick {
			unit, count = 64<<10, 8
		}
		for range count {
			x = (x*1103515245 + 12345) % (1 << 31)
			place := x * (d.Bytes / unit) / (1 << 31) * unit
			if o.Mode == capi.WipeQuick {
				if place = x * (head/unit + edge/unit) / (1 << 31); place < head/unit {
					place *= unit
				} else {
					place = d.Bytes - edge + (place-head/unit)*unit
				}
			}
			at = append(at, [2]int64{place, unit})
		}
		for _, r := range at {
			fmt.Fprintf(&b, "capplunder-sample dev=%s at=%d bytes=%d zeros=%d sha256=%x\n", d.Device, r[0], r[1], r[1], sha256.Sum256(make([]byte, r[1])))
		}
		fmt.Fprintf(&b, "capplunder-wiped dev=%s bytes=%d mode=%s samples=%d read=iflag=direct\n", d.Device, d.Bytes, o.Mode, len(at))
	}
	b.WriteString("capplunder-wipe-ok delay=10 boot_id=922cd220-4a08-429d-bd0f-cef3a4e1a966\n")
	return b.String()
}

func eraseLog(text, failure string) wire.Log {
	return wire.Log{State: wire.StateFailed, Entries: []wire.LogEntry{{Task: "wipe.erase#job", Entry: text, Error: failure}}}
}

// TestReadWipe: an answer is a proof only as it is. Without any one of its lines, or with
// any one number in it changed, it is none.
func TestReadWipe(t *testing.T) {
	for _, mode := range []capi.WipeMode{capi.WipeQuick, capi.WipeZero} {
		o := translate.WipeOrder{Mode: mode, Disks: []capi.Disk{{Device: "/dev/sda", Bytes: 64 << 20, WWN: "naa.1"}, {Device: "/dev/sdb", Bytes: 480103981056}}}
		text := answered("job", o)
		// A reset that cut the session short does not matter, nor what is printed between.
		got, done, err := translate.ReadWipe(eraseLog("noise\n"+text+"noise", "wait: remote command exited without exit status or exit signal"), "job", o)
		if err != nil || !done || len(got) != 2 || got[0].Disk != o.Disks[0] || got[1].Method != mode {
			t.Fatalf("%+v, done %v, err %v", got, done, err)
		}
		if s := got[0].Samples[0]; s.Offset != 0 || s.Bytes != 16<<20 || s.SHA256 != fmt.Sprintf("%x", sha256.Sum256(make([]byte, 16<<20))) {
			t.Errorf("%+v", s)
		}
		undigested := strings.Join(slices.Collect(func(yield func(string) bool) {
			for line := range strings.Lines(text) {
				line, _, _ = strings.Cut(strings.TrimSpace(line), " sha256=")
				yield(line)
			}
		}), "\n")
		counted, done, err := translate.ReadWipe(eraseLog(undigested, ""), "job", o)
		if err != nil || !done || !slices.Equal(counted[1].Samples, got[1].Samples) {
			t.Errorf("without sha256sum: %+v, done %v, err %v", counted, done, err)
		}
		none := func(what, text string) {
			t.Helper()
			if got, done, err := translate.ReadWipe(eraseLog(text, ""), "job", o); err == nil || !done || got != nil {
				t.Errorf("%s is taken for a proof: %+v", what, got)
			}
		}
		lines := slices.Collect(strings.Lines(text))
		for i, line := range lines {
			none("without "+line, strings.Join(slices.Delete(slices.Clone(lines), i, i+1), ""))
			if !strings.HasPrefix(line, "capplunder-wipe-ok") {
				for _, w := range strings.Fields(line)[1:] {
					// Which partitions there were is not known.
					if strings.HasPrefix(w, "read=") || strings.Contains(line, "sdb") && (w == "at=33554432" || w == "at=50331648") {
						continue
					}
					changed := slices.Clone(lines)
					changed[i] = strings.Replace(line, w, w+"0", 1)
					none(w+"0", strings.Join(changed, ""))
				}
			}
		}
		none("another job's", answered("other", o))
		other := o
		other.Mode = capi.WipeDiscard
		none("another mode's", answered("job", other))
		none("a failed one", text+"capplunder-wipe-error dev=/dev/sda reason=write at=0\n")
		none("a refused one", "capplunder-wipe-refused dev=/dev/sda reason=size\n"+text)
		more := o
		more.Disks = append(slices.Clone(o.Disks), capi.Disk{Device: "/dev/sdc", Bytes: 1 << 30})
		if _, _, err := translate.ReadWipe(eraseLog(text, ""), "job", more); err == nil || !strings.Contains(err.Error(), "disk /dev/sdc was not proved") {
			t.Errorf("a disk that is not there: %v", err)
		}
	}
	if _, done, err := translate.ReadWipe(eraseLog("", ""), "newer", translate.WipeOrder{}); done || err != nil {
		t.Errorf("an older job's entry: done %v, err %v", done, err)
	}
}

// Reasons that the script prints, each with what a person reads.
func TestWipeReasons(t *testing.T) {
	o := translate.WipeOrder{Disks: []capi.Disk{{Device: "/dev/sda", Bytes: 1 << 30}}}
	var all string
	for _, o.Mode = range capi.WipeModes() {
		all += wipeScript(t, o, true)
	}
	reasons := map[string]bool{}
	for _, part := range strings.Split(all, "reason=")[1:] {
		reasons[strings.FieldsFunc(part, func(r rune) bool { return r != '-' && (r < 'a' || r > 'z') })[0]] = true
	}
	if len(reasons) < 15 {
		t.Fatalf("only %d reasons", len(reasons))
	}
	for _, reason := range slices.Sorted(maps.Keys(reasons)) {
		for _, what := range []string{"refused", "error"} {
			_, done, err := translate.ReadWipe(eraseLog("capplunder-wipe-"+what+" dev=/dev/sda reason="+reason+" want=1 have=2 tool=x at=7\ncapplunder-wipe-failed", "Process exited with status 3"), "job", o)
			if !done || err == nil || !strings.Contains(err.Error(), "/dev/sda") || what == "refused" != strings.Contains(err.Error(), "nothing was destroyed") {
				t.Errorf("%s %s: %v", what, reason, err)
			}
			if what == "refused" && strings.Contains(err.Error(), "it says no more") && !slices.Contains([]string{"write", "discard", "secure", "proof"}, reason) {
				t.Errorf("%s is not explained: %v", reason, err)
			}
		}
	}
}

// FuzzReadWipe: whatever a host prints, a proof has the samples that it must have.
func FuzzReadWipe(f *testing.F) {
	o := translate.WipeOrder{Mode: capi.WipeQuick, Disks: []capi.Disk{{Device: "/dev/sda", Bytes: 64 << 20}}}
	good := answered("job", o)
	f.Add(good)
	f.Add(strings.ReplaceAll(good, "zeros=", "zeros=-"))
	f.Add("capplunder-wipe-refused reason=")
	f.Add("capplunder-wipe-error dev=/dev/sda")
	f.Add("capplunder-sample dev=/dev/sda at=9223372036854775807 bytes=9223372036854775807 zeros=9223372036854775807\ncapplunder-wipe-ok")
	must := strings.Count(good, "capplunder-sample")
	f.Fuzz(func(t *testing.T, text string) {
		disks, done, err := translate.ReadWipe(eraseLog(text, ""), "job", o)
		if !done || (err == nil) != (len(disks) == 1) {
			t.Fatalf("%+v, done %v, err %v", disks, done, err)
		}
		if err != nil {
			return
		}
		for _, line := range strings.Split(good, "\n")[:must] {
			if v := strings.Fields(line); strings.Contains(line, "at="+strconv.Itoa(32<<20)) || strings.Contains(line, "at="+strconv.Itoa(48<<20)) {
				continue // the partition's
			} else if !strings.Contains(text, v[2]) || !strings.Contains(text, v[3]) {
				t.Fatalf("a proof without %s: %s", line, text)
			}
		}
	})
}

// FuzzReadHostProbe: whatever a host prints, what is read of its disks can be shown and
// put into an order.
func FuzzReadHostProbe(f *testing.F) {
	f.Add(probeAnswer)
	f.Add("capplunder-facts id=x uid=0 system=VMkernel\ncapplunder-probe done")
	f.Add(strings.Replace(probeAnswer, "id=wwn-1", "id=wwn-1 wwn=a\x1b[2J serial=\"$(id) model=` mounts=/a\\0,\\777,\\ content=x\ncapplunder-content dev=/dev/sda1 what=?,\x1b", 1))
	f.Fuzz(func(t *testing.T, text string) {
		facts, done, err := translate.ReadHostProbe(wire.Log{Entries: []wire.LogEntry{{Task: "probe#j", Entry: text}}}, "j")
		if !done {
			t.Fatal("an answer that is there is done")
		}
		if err != nil {
			return
		}
		for _, d := range facts.Disks {
			plain := d.WWN + d.Serial + d.Model + d.Mounts + d.Content
			if strings.ContainsFunc(plain, func(r rune) bool {
				return r <= ' ' || r > '~' || strings.ContainsRune("\"'`$;", r) && !strings.ContainsRune(d.Mounts, r)
			}) {
				t.Fatalf("%q", plain)
			}
			if d.WWN != "" && strings.ContainsAny(d.WWN, ", ") {
				t.Fatalf("%q", d.WWN)
			}
		}
	})
}
