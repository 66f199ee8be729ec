package bench

import (
	"bytes"
	"testing"

	"github.com/plunder-app/capplunder/internal/kubetest"
)

// BenchmarkKubernetes1000 keeps the records of a thousand machines in a real API
// server on the same computer: installing them, then what a run costs that finds
// nothing to do, and what looking costs. requests/op is what the API server was asked.
func BenchmarkKubernetes1000(b *testing.B) {
	env := kubetest.ServerWith(b, kubetest.CAPIv1beta1)
	kubeconfig := kubetest.WriteKubeconfig(b, env.Config, env.Namespace(b))
	capplunder(b, "init", "--kubeconfig", kubeconfig)
	dir := b.TempDir()
	if err := writeFleet(dir, machines, "v1beta1"); err != nil {
		b.Fatal(err)
	}
	server, config := rack(b)
	defer server.Close()

	apply := []string{"apply", "-f", dir, "--skip-kubernetes", "--interval", "100ms", "--timeout", "15m"}
	for _, of := range []struct {
		name   string
		args   []string
		expect string // in each machine's line
	}{
		{"apply", apply, "plunder://"}, // the first time round; it takes so long that there is no second
		{"second-run", apply, "plunder://"},
		{"dry-run", append(apply, "--dry-run"), "/node-"},
		{"get-machines", []string{"get", "machines"}, "node-"},
	} {
		b.Run(of.name, func(b *testing.B) {
			env.ResetAudit(b)
			runs := 0
			measure(b, 0, func() process {
				runs++
				p := capplunder(b, append(of.args, "--plunder-config", config, "--kubeconfig", kubeconfig)...)
				if n := bytes.Count(p.stdout, []byte(of.expect)); n < machines {
					b.Fatalf("%d machines are shown\n%s", n, tail(string(p.stdout)))
				}
				return p
			})
			events := env.Audit(b)
			b.ReportMetric(float64(len(events))/float64(runs), "requests/op")
			b.ReportMetric(float64(len(kubetest.Writes(events)))/float64(runs), "writes/op")
		})
	}
}
