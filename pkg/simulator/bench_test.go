package simulator

import (
	"fmt"
	"net/http"
	"runtime"
	"testing"
	"time"
)

// thousand is a server with 1,000 machines, all deployed.
func thousand(b *testing.B) api {
	b.Helper()
	s := New(Config{Machines: 1000, OSInstall: time.Hour, BootLoop: time.Second})
	b.Cleanup(func() { _ = s.Close() })
	a := api{b, s}
	for i, m := range s.Machines() {
		a.post(deployment(m.MAC, "preseed", fmt.Sprintf("10.0.%d.%d", i/250, i%250+1), fmt.Sprintf("node-%d", i)))
	}
	return a
}

func BenchmarkGetDeployments(b *testing.B) {
	a := thousand(b)
	for b.Loop() {
		a.do(http.MethodGet, "/deployments", nil)
	}
}

func BenchmarkGetLog(b *testing.B) {
	a := thousand(b)
	for b.Loop() {
		if _, err := a.try(http.MethodGet, "/parlay/logs/10-0-0-1", nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkPatchDeployment(b *testing.B) {
	a := thousand(b)
	d := deployment(a.s.Machines()[0].MAC, "preseed", "10.0.0.1", "node-0")
	for b.Loop() {
		a.patch(d)
	}
}

// BenchmarkInstalledHost says what a host costs that is up.
func BenchmarkInstalledHost(b *testing.B) {
	s := New(Config{Machines: 100, OSInstall: -1, BootLoop: time.Hour})
	b.Cleanup(func() { _ = s.Close() })
	a := api{b, s}
	for i, m := range s.Machines() {
		a.post(deployment(m.MAC, "preseed", fmt.Sprintf("10.0.0.%d", i+1), "node"))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() { // each turn installs all of them anew
		s.mu.Lock()
		for _, m := range s.machines {
			s.install(m, m.Installing, time.Now())
			s.installed(m, time.Now())
		}
		s.mu.Unlock()
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/100/1024, "KiB/host")
}
