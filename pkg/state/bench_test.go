package state

import (
	"fmt"
	"testing"

	"github.com/plunder-app/capplunder/pkg/capi"
)

// thousand is a local store with 1,000 machines that all have records.
func thousand(b *testing.B) (*Local, *capi.Set) {
	b.Helper()
	names := make([]string, 1000)
	for i := range names {
		names[i] = fmt.Sprintf("machine-%04d", i)
	}
	set := testSet(names...)
	l := openLocal(b)
	_, unlock, err := l.Lock(b.Context(), capi.LockRequest{Command: "bench"})
	must(b, err)
	b.Cleanup(func() { _ = unlock() })
	must(b, l.Sync(b.Context(), set))
	for i := range set.Machines {
		must(b, l.SaveRecord(b.Context(), benchRecord(set, i)))
	}
	return l, set
}

func benchRecord(set *capi.Set, i int) capi.Record {
	mac := fmt.Sprintf("00:50:56:00:%02x:%02x", i/256, i%256)
	return capi.Record{
		Key: set.Machines[i].Key, Cluster: "c", Version: "v1.34.1", MAC: mac, Address: fmt.Sprintf("10.0.%d.%d", i/256, i%256),
		HostName: set.Machines[i].Name + "-abcde", Server: "https://127.0.0.1:60443", ProviderID: capi.ProviderID(mac),
		Disks: []capi.Disk{{Device: "/dev/sda", Bytes: 1 << 40, ID: "0x5000c500a1b2c3d4", Flags: "root"}}, Ready: true, Phase: capi.PhaseProvisioned,
	}
}

func BenchmarkRecords1000(b *testing.B) {
	l, _ := thousand(b)
	for b.Loop() {
		records, err := l.Records(b.Context())
		if err != nil || len(records) != 1000 {
			b.Fatal(len(records), err)
		}
	}
}

func BenchmarkSyncUnchanged1000(b *testing.B) {
	l, set := thousand(b)
	for b.Loop() {
		must(b, l.Sync(b.Context(), set))
	}
}

func BenchmarkSyncNew1000(b *testing.B) {
	_, set := thousand(b)
	for b.Loop() {
		must(b, openLocal(b).Sync(b.Context(), set))
	}
}

func BenchmarkSaveRecordOf1000(b *testing.B) {
	l, set := thousand(b)
	i := 0
	for b.Loop() {
		r := benchRecord(set, i%1000)
		r.Step = fmt.Sprint(i)
		must(b, l.SaveRecord(b.Context(), r))
		i++
	}
}
