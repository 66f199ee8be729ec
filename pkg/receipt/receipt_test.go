package receipt

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const server = "https://10.0.0.1:60443"

// zeroSample is a range that reads as zeros.
func zeroSample(offset, n int64) capi.Sample {
	sum := sha256.Sum256(make([]byte, n))
	return capi.Sample{Offset: offset, Bytes: n, SHA256: hex.EncodeToString(sum[:])}
}

// wiped is the record of a machine whose wipe was proved.
func wiped(name, run string) capi.Record {
	began := time.Date(2026, 3, 1, 10, 0, 0, 123456789, time.FixedZone("CET", 3600))
	return capi.Record{
		Key: capi.Key{Namespace: "default", Name: name}, Cluster: "red", HostName: name + "-l8v99", MAC: "00:50:56:a5:11:20", Address: "192.168.1.124", Server: server,
		Wipe: capi.Wipe{
			Mode: capi.WipeZero, RunID: run, By: "ann@ops", StartedAt: began, ProvedAt: began.Add(time.Minute),
			Disks: []capi.WipedDisk{
				{
					Disk:    capi.Disk{Device: "/dev/sda", Bytes: 480 << 30, ID: "naa.5000", WWN: "naa.5000", Serial: "S3Z8<1>", Model: "Example_480G", Flags: "root"},
					Method:  capi.WipeZero,
					Samples: []capi.Sample{zeroSample(480<<30-1<<20, 1<<20), zeroSample(0, 16<<20), zeroSample(7<<30, 1<<20)},
				},
				{Disk: capi.Disk{Device: "/dev/sdb", Bytes: 4096, ID: "-"}, Method: capi.WipeQuick, Samples: []capi.Sample{zeroSample(0, 4096)}},
			},
		},
	}
}

// sample is a receipt of two machines.
func sample() Receipt {
	r := Receipt{APIVersion: APIVersion, Kind: Kind, Tool: "capplunder test", Server: server, RunIDs: []string{"r1", "r2"}}
	r.Machines = []Machine{machineOf(wiped("worker", "r1")), machineOf(wiped("worker-2", "r2"))}
	return r
}

func TestEncodeDecode(t *testing.T) {
	r := sample()
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	data, err := r.Encode()
	if err != nil {
		t.Fatal(err)
	}
	// What is in the file, by name: it is a format.
	for _, want := range []string{
		`"startedAt": "2026-03-01T09:00:00.123456789Z"`, `"serial": "S3Z8<1>"`, `"wwn": "naa.5000"`, `"bytes": 515396075520`, `"method": "zero"`,
		`"offset": 7516192768`, `"sha256": "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58"`, `"by": "ann@ops"`, `"runID": "r1"`, `"simulated": false`,
	} {
		if !bytes.Contains(data, []byte(want)) {
			t.Errorf("no %s in\n%s", want, data)
		}
	}
	got, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := got.Encode(); !bytes.Equal(again, data) {
		t.Errorf("not the same again:\n%s", again)
	}
}

// Only the exact form is read: what one reader takes for a comment, another could take
// for the disk.
func TestDecodeRefuses(t *testing.T) {
	data, err := sample().Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(data)
	for name, tt := range map[string]struct{ data, want string }{
		"nothing":          {"", "no receipt"},
		"other JSON":       {`{"kind":"List"}`, `its kind is "List"`},
		"an array":         {"[]", "no receipt"},
		"half of it":       {good[:len(good)/2], "no receipt"},
		"a newer version":  {strings.Replace(good, "io/v1", "io/v2", 1), `"capplunder.plunder-app.io/v2"`},
		"unknown field":    {strings.Replace(good, `"tool":`, `"note": 1, "tool":`, 1), "line 4"},
		"a field twice":    {strings.Replace(good, `"simulated": false`, "\"simulated\": true,\n  \"simulated\": false", 1), "not as capplunder writes"},
		"other capitals":   {strings.Replace(good, `"server"`, `"Server"`, 1), "not as capplunder writes"},
		"something behind": {good + "{}", "something follows"},
		"blanks behind":    {good + "\n", "not as capplunder writes"},
		"one line":         {strings.ReplaceAll(good, "\n", ""), "not as capplunder writes"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Decode([]byte(tt.data)); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %s", err, tt.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(r *Receipt, m *Machine, d *Disk)
		want   string // "" when nothing is wrong
	}{
		"good":                 {func(*Receipt, *Machine, *Disk) {}, ""},
		"no machine":           {func(r *Receipt, _ *Machine, _ *Disk) { r.Machines = nil }, "about no machine"},
		"no server":            {func(r *Receipt, _ *Machine, _ *Disk) { r.Server = "" }, "names no plunder server"},
		"a foreign run":        {func(_ *Receipt, m *Machine, _ *Disk) { m.RunID = "r9" }, `machine "default/worker": run "r9" is none`},
		"twice":                {func(r *Receipt, m *Machine, _ *Disk) { r.Machines = append(r.Machines, *m) }, "stands there twice"},
		"wiped again later":    {func(r *Receipt, m *Machine, _ *Disk) { n := *m; n.RunID = "r2"; r.Machines = append(r.Machines, n) }, ""},
		"no name":              {func(_ *Receipt, m *Machine, _ *Disk) { m.Name = "" }, "it has no name"},
		"MAC in capitals":      {func(_ *Receipt, m *Machine, _ *Disk) { m.MAC = "00:50:56:A5:11:20" }, "is no MAC address"},
		"no address":           {func(_ *Receipt, m *Machine, _ *Disk) { m.Address = "" }, "is no IPv4 address"},
		"nobody":               {func(_ *Receipt, m *Machine, _ *Disk) { m.By = "" }, "there is no by"},
		"no time":              {func(_ *Receipt, m *Machine, _ *Disk) { m.ProvedAt = time.Time{} }, "not said when"},
		"proved before":        {func(_ *Receipt, m *Machine, _ *Disk) { m.ProvedAt = m.StartedAt.Add(-1) }, "before it began"},
		"no disks":             {func(_ *Receipt, m *Machine, _ *Disk) { m.Disks = nil }, "no disk was wiped"},
		"a disk twice":         {func(_ *Receipt, m *Machine, d *Disk) { m.Disks = append(m.Disks, *d) }, "stands there twice"},
		"no size":              {func(_ *Receipt, _ *Machine, d *Disk) { d.Bytes = 0 }, "its size is 0"},
		"unknown method":       {func(_ *Receipt, _ *Machine, d *Disk) { d.Method = "hammer" }, `called "hammer"`},
		"no samples":           {func(_ *Receipt, _ *Machine, d *Disk) { d.Samples = nil }, "its start was not read back"},
		"not the start":        {func(_ *Receipt, _ *Machine, d *Disk) { d.Samples[0].Offset = 512 }, "its start was not read back"},
		"not the end":          {func(_ *Receipt, _ *Machine, d *Disk) { d.Samples[2].Offset -= 512 }, "its end was not read back"},
		"a smaller disk":       {func(_ *Receipt, _ *Machine, d *Disk) { d.Bytes -= 512 }, "not within the disk"},
		"a sample before it":   {func(_ *Receipt, _ *Machine, d *Disk) { d.Samples[1].Offset = -1 }, "not within the disk"},
		"an offset that wraps": {func(_ *Receipt, _ *Machine, d *Disk) { d.Samples[1].Offset = 1<<63 - 1 }, "not within the disk"},
		"another digest":       {func(_ *Receipt, _ *Machine, d *Disk) { d.Samples[1].SHA256 = d.Samples[0].SHA256 }, "not that of zeros"},
		"a digest in capitals": {func(_ *Receipt, _ *Machine, d *Disk) { d.Samples[1].SHA256 = strings.ToUpper(d.Samples[1].SHA256) }, "not that of zeros"},
		"another length":       {func(_ *Receipt, _ *Machine, d *Disk) { d.Samples[1].Bytes /= 2 }, "not that of zeros"},
		"a whole disk at once": {func(_ *Receipt, _ *Machine, d *Disk) { d.Samples[0].Bytes = d.Bytes }, "more than is ever read back"},
		"only the ends of it":  {func(_ *Receipt, _ *Machine, d *Disk) { d.Samples = []capi.Sample{d.Samples[0], d.Samples[2]} }, "nothing between"},
		"the ends, and no claim": {func(_ *Receipt, _ *Machine, d *Disk) {
			d.Method, d.Samples = capi.WipeQuick, []capi.Sample{d.Samples[0], d.Samples[2]}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := sample()
			tt.change(&r, &r.Machines[0], &r.Machines[0].Disks[0])
			err := r.Check()
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

// A receipt cannot keep its reader hashing: all lengths together cost one pass.
func TestCheckIsCheap(t *testing.T) {
	r := sample()
	d := &r.Machines[0].Disks[0]
	for i := range int64(10_000) {
		d.Samples = append(d.Samples, capi.Sample{Offset: i << 20, Bytes: 16<<20 + i, SHA256: fmt.Sprint(i)})
	}
	began := time.Now()
	if err := r.Check(); err == nil || strings.Count(err.Error(), "not that of zeros") != 10_000 {
		t.Errorf("%.200v", err)
	}
	if d := time.Since(began); d > 20*time.Second { // hashing each alone would be 160 GB
		t.Errorf("took %s", d)
	}
}

func FuzzDecode(f *testing.F) {
	r := sample()
	r.Machines = r.Machines[:1]
	r.Machines[0].Disks = r.Machines[0].Disks[1:] // a small one: hashing is slow here
	data, err := r.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"kind":"WipeReceipt","apiVersion":"capplunder.plunder-app.io/v1"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Decode(data)
		if err != nil {
			return
		}
		again, err := r.Encode()
		if err != nil || !bytes.Equal(again, data) {
			t.Errorf("%v: read, but written as\n%s", err, again)
		}
		for _, m := range r.Machines {
			for _, d := range m.Disks {
				for _, s := range d.Samples {
					if s.Bytes > 1<<16 {
						return // costs too much to be tried often
					}
				}
			}
		}
		_ = r.Check()
	})
}
