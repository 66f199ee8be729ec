package bench

import (
	"bytes"
	"encoding/base64"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/internal/kubetest"
	"github.com/plunder-app/capplunder/pkg/plunder"
	"github.com/plunder-app/capplunder/pkg/simulator"
)

// The limits: see docs/benchmarks.md.
const (
	machines      = 1000
	memoryLimit   = 200 << 20 // bytes, of the whole process at its peak
	planLimit     = time.Second
	simulatedBoot = 2 * time.Second
)

// program is the built command; empty when no benchmark runs.
var program string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if flag.Lookup("test.bench").Value.String() == "" {
		return m.Run()
	}
	dir, err := os.MkdirTemp("", "capplunder-bench-*")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "capplunder")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "github.com/plunder-app/capplunder/cmd/capplunder")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return kubetest.Main(m)
}

// process is what one run of the program took.
type process struct {
	wall, cpu time.Duration
	rss       int64 // bytes, the most it had at any time
	stdout    []byte
}

// capplunder runs the program with an empty home directory of its own.
func capplunder(b *testing.B, args ...string) process {
	b.Helper()
	home := b.TempDir()
	cmd := exec.CommandContext(b.Context(), program, args...)
	cmd.Dir = home
	cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH"), "TZ=UTC"}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	began := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	rss := make(chan int64, 1)
	ended := make(chan struct{})
	go func() { rss <- peak(cmd.Process.Pid, ended) }()
	err := cmd.Wait()
	p := process{wall: time.Since(began), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), stdout: stdout.Bytes()}
	close(ended)
	if err != nil {
		b.Fatalf("capplunder %s: %v\n%s", strings.Join(args, " "), err, tail(stderr.String()))
	}
	if p.rss = <-rss; p.rss == 0 {
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			b.Fatalf("no memory use known on %s", runtime.GOOS)
		}
		p.rss = usage.Maxrss
		if runtime.GOOS != "darwin" { // which counts bytes, the others KiB
			p.rss <<= 10
		}
	}
	return p
}

// peak is the most resident memory that a process had while it could be seen, or 0
// where there is no Linux /proc. What the kernel says when it has ended (ru_maxrss)
// starts at the memory of the process that it was forked from, and that is ours, with
// the simulated server in it.
func peak(pid int, ended <-chan struct{}) (bytes int64) {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	self, err := os.Executable()
	if err != nil {
		return 0
	}
	for {
		// Before its exec the process has our memory.
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
		status, statusErr := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err == nil && statusErr == nil && exe != self {
			_, after, _ := strings.Cut(string(status), "VmHWM:")
			var kib int64
			if _, err := fmt.Sscan(after, &kib); err == nil {
				bytes = max(bytes, kib<<10)
			}
		}
		select {
		case <-ended:
			return bytes
		case <-tick.C:
		}
	}
}

// tail is the end of a text that may be long.
func tail(s string) string { return s[max(0, len(s)-2000):] }

// measure runs the program again and again, reports what it took, and holds it to
// the limits. wall is the limit of the fastest run, 0 for none: a busy computer
// makes all runs slower and none faster.
func measure(b *testing.B, wall time.Duration, once func() process) {
	b.Helper()
	var cpu time.Duration
	var rss int64
	n, fastest := 0, time.Duration(0)
	for b.Loop() {
		p := once()
		if n == 0 || p.wall < fastest {
			fastest = p.wall
		}
		cpu += p.cpu
		rss = max(rss, p.rss)
		n++
	}
	b.ReportMetric(float64(cpu.Microseconds())/1000/float64(n), "cpu-ms/op")
	b.ReportMetric(float64(fastest.Microseconds())/1000, "fastest-ms")
	b.ReportMetric(float64(rss)/(1<<20), "peak-MiB")
	if rss > memoryLimit {
		b.Errorf("%d MiB of memory at the peak, more than %d", rss>>20, memoryLimit>>20)
	}
	if wall > 0 && fastest > wall {
		b.Errorf("%s at best, more than %s", fastest, wall)
	}
}

// BenchmarkVersion is the start of the program. scripts/startup.sh compares it
// with kubectl's.
func BenchmarkVersion(b *testing.B) {
	measure(b, 0, func() process { return capplunder(b, "version") })
}

// BenchmarkDryRun1000 is everything that happens before the first request.
func BenchmarkDryRun1000(b *testing.B) {
	dir := b.TempDir()
	if err := WriteFleet(dir, machines); err != nil {
		b.Fatal(err)
	}
	measure(b, planLimit, func() process {
		p := capplunder(b, "apply", "--dry-run", "-f", dir)
		if n := bytes.Count(p.stdout, []byte("default/node-")); n != machines {
			b.Fatalf("%d machines are planned", n)
		}
		return p
	})
}

// BenchmarkApply1000 installs the operating systems of a thousand simulated
// machines, with the server in this process and the program in its own, over TLS.
// A look each 100 ms makes the program work much harder than in real life.
func BenchmarkApply1000(b *testing.B) {
	dir := b.TempDir()
	if err := WriteFleet(dir, machines); err != nil {
		b.Fatal(err)
	}
	measure(b, 0, func() process {
		server, config := rack(b)
		defer server.Close()
		p := capplunder(b, "apply", "-f", dir, "--skip-kubernetes", "--interval", "100ms", "--timeout", "5m", "--plunder-config", config)
		if n := bytes.Count(p.stdout, []byte("plunder://")); n != machines {
			b.Fatalf("%d machines are provisioned", n)
		}
		b.ReportMetric(float64(server.Count("POST /parlay"))/machines, "posts/machine")
		return p
	})
}

// rack is a simulated plunder server with a thousand machines, and the path of a
// configuration for its client.
func rack(b *testing.B) (server *simulator.Server, config string) {
	b.Helper()
	server = simulator.New(simulator.Config{
		Machines: machines, OSInstall: simulatedBoot,
		// What a POST costs a real server would be the larger part of all time here:
		// 2.5 s for each. The tests with a virtual clock count that (makespan_test.go).
		POSTCost: 10 * time.Microsecond,
	})
	listener, err := server.Listen(b.Context(), "127.0.0.1:0", simulator.ListenOptions{})
	if err != nil {
		b.Fatal(err)
	}
	config = filepath.Join(b.TempDir(), plunder.ConfigFile)
	client := plunder.Config{Address: listener.Address, Port: listener.Port, Cert: base64.StdEncoding.EncodeToString(listener.CertPEM)}
	if err := client.WriteFile(config); err != nil {
		b.Fatal(err)
	}
	return server, config
}
