package translate_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/apply/event"
	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/translate"
)

func machine(name, version string, controlPlane bool) *capi.Machine {
	return &capi.Machine{
		Key: capi.Key{Namespace: "default", Name: name}, Version: version, ControlPlane: controlPlane,
		Cluster: &capi.Cluster{Key: capi.Key{Namespace: "default", Name: "c"}, Infra: &capi.PlunderCluster{}},
		Infra: &capi.PlunderMachine{
			Key:  capi.Key{Namespace: "default", Name: name},
			Spec: capi.PlunderMachineSpec{IPAddress: "192.168.1.5", DeploymentType: "preseed"},
		},
	}
}

// someData is bootstrap data in base64, as v1alpha2 has it.
const someData = "I2Nsb3VkLWNvbmZpZwpydW5jbWQ6Ci0ga3ViZWFkbSBqb2luIC0tY29uZmlnIC9ydW4va3ViZWFkbS9rdWJlYWRtLWpvaW4tY29uZmlnLnlhbWwK"

func TestNewPlanOrder(t *testing.T) {
	plan, err := translate.NewPlan(&capi.Set{Machines: []*capi.Machine{machine("a", "v1.34.1", false), machine("z", "v1.34.1", true)}}, translate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cp, w := plan.Machines[0], plan.Machines[1]
	if cp.Machine.Name != "z" || !cp.Init || w.Init {
		t.Errorf("the control plane must come first and be the one to initialise: %+v %+v", cp, w)
	}
	if !slices.Contains(cp.Steps, event.StepInit) || !slices.Contains(w.Steps, event.StepJoin) || slices.Contains(w.Steps, event.StepInit) {
		t.Errorf("steps %v and %v", cp.Steps, w.Steps)
	}
	d := translate.Deployment(cp, "00:50:56:a5:11:20", "z-abcde")
	if d.MAC != "00:50:56:a5:11:20" || d.BootConfigName != "preseed" || d.Config.Address != "192.168.1.5" || d.Config.Hostname != "z-abcde" {
		t.Errorf("deployment %+v", d)
	}
	if cp.Deployment.MAC != "" {
		t.Error("Deployment changed the plan")
	}
}

func TestNewPlanSkipKubernetes(t *testing.T) {
	m := machine("a", "v1.14.2", true)
	m.BootstrapData = "secret"
	plan, err := translate.NewPlan(&capi.Set{Machines: []*capi.Machine{m}}, translate.Options{SkipKubernetes: true})
	if err != nil || plan.Machines[0].Kubernetes != nil || slices.Contains(plan.Machines[0].Steps, event.StepPackages) {
		t.Fatalf("plan %+v, err %v", plan, err)
	}
}

// TestNewPlanRefusals: what the objects alone can tell is told of all machines at once.
func TestNewPlanRefusals(t *testing.T) {
	old, named, none, odd := machine("old", "v1.14.2", false), machine("named", "v1.34.1", false), machine("none", "", false), machine("odd", "v1.34.1", false)
	named.BootstrapConfig = true
	none.BootstrapData = someData
	odd.Infra.Spec.Runtime = capi.RuntimeDocker
	odd.Infra.Spec.Repo = &capi.PackageRepo{Base: "https://user@mirror.example/k8s"}
	set := &capi.Set{Machines: []*capi.Machine{old, named, none, odd, machine("cp1", "v1.34.1", true), machine("cp2", "v1.34.1", true), machine("new", "v2.0.0", false), machine("ancient", "v1.12.0", false)}}
	_, err := translate.NewPlan(set, translate.Options{})
	var bad *capi.InputError
	if !errors.As(err, &bad) || len(bad.Problems) != 8 {
		t.Fatalf("want 8 problems at once: %v", err)
	}
	for _, text := range []string{
		"Machine default/old: spec.version: v1.14.2: no public package repository serves it (oldest: v1.24.0)", "spec.repo.apt or spec.repo.rpm with spec.repo.key", "spec.method: binaries", "choose v1.24 or newer", "--skip-kubernetes",
		"Machine default/named: spec.bootstrap.configRef: there is no bootstrap provider here", "--bootstrap-data named=FILE", `dataSecretName: ""`,
		"Machine default/none: spec.version: it is needed",
		"PlunderMachine default/odd: spec.runtime: kubelet cannot use docker from v1.24 on", "PlunderMachine default/odd: spec.repo.base: has a user in it",
		"Cluster default/c: spec.controlPlaneEndpoint: it is needed for 2 control plane Machines",
		"v2.0.0: the oldest", "v1.12.0: the oldest that can be installed is v1.13",
	} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in\n%v", text, err)
		}
	}
	for _, secret := range []string{none.BootstrapData, "user@"} {
		if strings.Contains(err.Error(), secret) {
			t.Errorf("%q is a secret and must not be in an error", secret)
		}
	}
}

func TestNewPlanBootstrapped(t *testing.T) {
	all := func() []event.Step {
		return []event.Step{event.StepHardware, event.StepDeployment, event.StepOS, event.StepPackages, event.StepBootstrap, event.StepNode, event.StepRecord}
	}
	on, secret, empty := true, "some-secret", ""
	for _, tt := range []struct {
		name      string
		change    func(*capi.Machine)
		providers bool
		want      []event.Step
	}{
		{"inline", func(m *capi.Machine) { m.BootstrapData = someData }, false, all()},
		{"a Secret", func(m *capi.Machine) { m.DataSecretName = &secret }, false, all()},
		{"beside it", func(m *capi.Machine) {
			m.GivenBootstrap, m.BootstrapConfig = &capi.BootstrapData{Value: []byte("#cloud-config\nruncmd:\n- kubeadm init\n")}, true
		}, false, all()},
		{"to come", func(m *capi.Machine) { m.BootstrapConfig = true }, true, all()},
		{"everything on the image", func(m *capi.Machine) {
			m.BootstrapData, m.Version, m.Infra.Spec.SkipInstall = someData, "", &on
		}, false, slices.Delete(all(), 3, 4)},
		{"everything on the image, but a script", func(m *capi.Machine) {
			m.BootstrapData, m.Infra.Spec.SkipInstall, m.Infra.Spec.Hooks = someData, &on, &capi.Hooks{Before: "true"}
		}, false, all()},
		{"kubeadm is ours", func(m *capi.Machine) { m.BootstrapConfig, m.DataSecretName = true, &empty }, false,
			[]event.Step{event.StepHardware, event.StepDeployment, event.StepOS, event.StepPackages, event.StepInit, event.StepNode, event.StepRecord}},
	} {
		m := machine("a", "v1.34.1", true)
		tt.change(m)
		plan, err := translate.NewPlan(&capi.Set{Machines: []*capi.Machine{m}}, translate.Options{Providers: tt.providers})
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		mp := plan.Machines[0]
		if !slices.Equal(mp.Steps, tt.want) || mp.Kubernetes.Bootstrapped != slices.Contains(tt.want, event.StepBootstrap) {
			t.Errorf("%s: bootstrapped %v, steps %v, want %v", tt.name, mp.Kubernetes.Bootstrapped, mp.Steps, tt.want)
		}
	}
}

// TestNewPlanControlPlanes: what several control planes need, and which one is first.
func TestNewPlanControlPlanes(t *testing.T) {
	endpoint := func(host string) func(*capi.Cluster) {
		return func(c *capi.Cluster) { c.Endpoint = capi.Endpoint{Host: host, Port: 6443} }
	}
	vip := func(c *capi.Cluster) { c.Infra.Spec.VIP = &capi.VIP{} }
	for _, tt := range []struct {
		name          string
		version       string
		controlPlanes int
		cluster       []func(*capi.Cluster)
		want          string // in the error; "" for none
	}{
		{name: "one alone", controlPlanes: 1},
		{name: "one with its own address as endpoint", controlPlanes: 1, cluster: []func(*capi.Cluster){endpoint("10.0.0.1")}},
		{name: "three behind a name", controlPlanes: 3, cluster: []func(*capi.Cluster){endpoint("api.example")}},
		{name: "three behind an address", controlPlanes: 3, cluster: []func(*capi.Cluster){endpoint("10.0.0.9")}},
		{name: "three with a VIP", controlPlanes: 3, cluster: []func(*capi.Cluster){endpoint("10.0.0.9"), vip}},
		{name: "three without an endpoint", controlPlanes: 3, want: "it is needed for 3 control plane Machines: the address or name of a load balancer in front of them, or, with vip, a free address"},
		{name: "an endpoint of their own", controlPlanes: 3, cluster: []func(*capi.Cluster){endpoint("10.0.0.2")}, want: "10.0.0.2 is the address of Machine default/cp2: with several control plane Machines"},
		{name: "an endpoint of a worker", controlPlanes: 3, cluster: []func(*capi.Cluster){endpoint("192.168.1.5")}, want: "is the address of Machine default/w"},
		{name: "a VIP without an endpoint", controlPlanes: 1, cluster: []func(*capi.Cluster){vip}, want: "it is needed with vip"},
		{name: "a VIP with a name", controlPlanes: 3, cluster: []func(*capi.Cluster){vip, endpoint("api.example")}, want: `"api.example" is not an IPv4 address`},
		{name: "a VIP that a machine has", controlPlanes: 1, cluster: []func(*capi.Cluster){vip, endpoint("10.0.0.1")}, want: "with vip it must be an address of no machine"},
		{name: "v1.13", version: "v1.13.5", controlPlanes: 3, cluster: []func(*capi.Cluster){endpoint("10.0.0.9")}, want: "kubeadm of v1.13.5 cannot hand keys"},
		{name: "v1.13 with pki: tool", version: "v1.13.5", controlPlanes: 3, cluster: []func(*capi.Cluster){endpoint("10.0.0.9"), func(c *capi.Cluster) { c.Infra.Spec.PKI = capi.PKITool }}},
		{name: "v1.13 alone", version: "v1.13.5", controlPlanes: 1},
		{name: "one of them bootstrapped", controlPlanes: 3, cluster: []func(*capi.Cluster){endpoint("10.0.0.9"), func(c *capi.Cluster) { c.Machines[1].BootstrapData = "eA==" }}, want: "1 of its 3 control plane Machines have bootstrap data and 2 have none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.version == "" {
				tt.version = "v1.34.1"
			}
			c := &capi.Cluster{Key: capi.Key{Namespace: "default", Name: "c"}, Infra: &capi.PlunderCluster{}}
			for i := range tt.controlPlanes {
				m := machine(fmt.Sprintf("cp%d", i+1), tt.version, true)
				m.Infra.Spec.IPAddress = fmt.Sprintf("10.0.0.%d", i+1)
				c.Machines = append(c.Machines, m)
			}
			c.Machines = append(c.Machines, machine("w", tt.version, false))
			for _, m := range c.Machines {
				m.Cluster = c
				m.Infra.Spec.Method = capi.MethodBinaries
			}
			for _, f := range tt.cluster {
				f(c)
			}
			plan, err := translate.NewPlan(&capi.Set{Machines: c.Machines}, translate.Options{})
			if tt.want != "" {
				if err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %q", err, tt.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			for _, mp := range plan.Machines {
				first := mp.Machine.Name == "cp1"
				if mp.Init != first || slices.Contains(mp.Steps, event.StepInit) != first || slices.Contains(mp.Steps, event.StepJoin) == first || mp.Kubernetes.HA != (tt.controlPlanes > 1) || mp.Kubernetes.Single {
					t.Errorf("%s: %+v", mp.Machine.Name, mp)
				}
			}
		})
	}
}

// TestNewPlanCountsNodes: machines that are no nodes, or will not be for long, do not count.
func TestNewPlanCountsNodes(t *testing.T) {
	cp, leaving, bare := machine("cp2", "v1.34.1", true), machine("cp1", "v1.34.1", true), machine("bare", "", false)
	leaving.Deleting = true
	plan, err := translate.NewPlan(&capi.Set{Machines: []*capi.Machine{bare, leaving, cp}}, translate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, mp := range plan.Machines {
		switch mp.Machine {
		case cp:
			if !mp.Init || !mp.Kubernetes.Single || mp.Kubernetes.HA {
				t.Errorf("%+v %+v", mp, mp.Kubernetes)
			}
		case bare:
			if mp.Kubernetes != nil || slices.Contains(mp.Steps, event.StepNode) {
				t.Errorf("%+v", mp)
			}
		case leaving:
			if mp.Init {
				t.Errorf("%+v", mp)
			}
		}
	}
}

func TestNewPlanMirrorAllowsOldVersions(t *testing.T) {
	on := true
	for _, o := range []capi.InstallOptions{
		{Repo: &capi.PackageRepo{Apt: "deb https://mirror.example/ kubernetes-xenial main", Key: "https://mirror.example/key"}},
		{Repo: &capi.PackageRepo{RPM: "https://mirror.example/el7", Key: "https://mirror.example/key"}},
		{Repo: &capi.PackageRepo{Base: "https://mirror.example/k8s"}}, {Method: capi.MethodBinaries}, {SkipInstall: &on},
	} {
		m := machine("old", "v1.14.2", true)
		m.Infra.Spec.InstallOptions = o
		if _, err := translate.NewPlan(&capi.Set{Machines: []*capi.Machine{m}}, translate.Options{}); err != nil {
			t.Error(err)
		}
		m = machine("old", "v1.14.2", true) // the run's own defaults do as well
		if _, err := translate.NewPlan(&capi.Set{Machines: []*capi.Machine{m}}, translate.Options{Defaults: capi.Defaults{InstallOptions: o}}); err != nil {
			t.Error(err)
		}
	}
}

func TestNewPlanVersionSkew(t *testing.T) {
	for _, tt := range []struct {
		control, worker string
		skip, deleting  bool
		want            string
	}{
		{control: "v1.34.0", worker: "v1.34.9"},
		{control: "v1.34.0", worker: "v1.31.0"},
		{control: "v1.34.0", worker: "v1.35.0", want: "Machine default/w: spec.version: v1.35.0 is newer than the control plane (Machine default/cp has v1.34.0): a worker may be older than it, never newer"},
		{control: "v1.34.0", worker: "v1.35.0", skip: true},
		{control: "v1.34.0", worker: "v1.35.0", deleting: true},
		{worker: "v1.35.0"}, // the control plane was installed by an earlier run
		{control: "v1.34.0", worker: "v1.99", want: "is not a version"},
	} {
		w := machine("w", tt.worker, false)
		w.Deleting = tt.deleting
		set := &capi.Set{Machines: []*capi.Machine{w}}
		if tt.control != "" {
			set.Machines = append(set.Machines, machine("cp", tt.control, true))
		}
		_, err := translate.NewPlan(set, translate.Options{SkipKubernetes: tt.skip})
		if (err == nil) != (tt.want == "") || err != nil && (!strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "problems")) {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestRefuseConfigType(t *testing.T) {
	err := translate.RefuseConfigType("vsphere", &translate.Kubernetes{})
	if err == nil || !strings.Contains(err.Error(), "ESXi cannot run Kubernetes") {
		t.Errorf("got %v", err)
	}
	for _, kind := range []string{"preseed", "kickstart", "booty", ""} {
		if err := translate.RefuseConfigType(kind, &translate.Kubernetes{}); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
	if err := translate.RefuseConfigType("vsphere", nil); err != nil {
		t.Errorf("ESXi alone: %v", err)
	}
}

func TestWarnings(t *testing.T) {
	apt, rpm := translate.Facts{ID: "ubuntu", Version: "24.04", PackageManager: "apt-get", Cgroup: 2}, translate.Facts{ID: "rocky", Version: "9.4", PackageManager: "dnf", Cgroup: 2}
	for _, tt := range []struct {
		k    translate.Kubernetes
		kind string
		f    translate.Facts
		want []string
	}{
		{translate.Kubernetes{Version: "1.37.0", Minor: 37}, "preseed", apt, nil},
		{translate.Kubernetes{Version: "1.38.0", Minor: 38}, "kickstart", rpm, []string{"v1.38.0 is newer than this capplunder, which knows v1.37 and older: it is installed like v1.37"}},
		{translate.Kubernetes{Version: "1.34.1", Minor: 34}, "preseed", rpm, []string{"of type preseed, but the host is rocky 9.4 with dnf"}},
		{translate.Kubernetes{Version: "1.34.1", Minor: 34}, "kickstart", apt, []string{"of type kickstart, but the host is ubuntu 24.04 with apt-get"}},
		{translate.Kubernetes{Version: "1.34.1", Minor: 34}, "booty", rpm, nil},
		{translate.Kubernetes{Version: "1.20.0", Minor: 20, InstallOptions: capi.InstallOptions{DockerVersion: "19.03.15"}}, "preseed", apt, []string{"Docker 19.03.15 does not know cgroup v2"}},
		{translate.Kubernetes{Version: "1.20.0", Minor: 20, InstallOptions: capi.InstallOptions{DockerVersion: "5:20.10.24~3-0~ubuntu-focal"}}, "preseed", apt, nil},
		{translate.Kubernetes{Version: "1.24.0", Minor: 24, InstallOptions: capi.InstallOptions{DockerVersion: "20.10.24"}}, "preseed", apt, []string{"dockerVersion 20.10.24 is not used"}},
	} {
		got := tt.k.Warnings(tt.kind, tt.f)
		if len(got) != len(tt.want) {
			t.Errorf("%s on %s: %q, want %q", tt.k.Version, tt.f.ID, got, tt.want)
			continue
		}
		for i := range got {
			if !strings.Contains(got[i], tt.want[i]) {
				t.Errorf("%s on %s: %q, want %q", tt.k.Version, tt.f.ID, got, tt.want)
			}
		}
	}
}

func TestRestrictedTo(t *testing.T) {
	pinned, pooled, static := machine("a", "", true), machine("b", "", true), machine("c", "", true)
	pinned.Infra.Spec.MACAddress = "00:50:56:00:00:01"
	pinned.Infra.Spec.ControlPlaneMacPool = []string{"00:50:56:00:00:02"}
	pooled.Infra.Spec.ControlPlaneMacPool = []string{"00:50:56:00:00:03", "00:50:56:00:00:04"}
	static.Cluster.Infra.Spec.StaticMAC = "00:50:56:00:00:05"
	worker := machine("w", "", false)
	worker.Cluster.Infra.Spec.StaticMAC = "00:50:56:00:00:05"
	plan, err := translate.NewPlan(&capi.Set{Machines: []*capi.Machine{pinned, pooled, static, worker}}, translate.Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ macs, by string }{
		{"00:50:56:00:00:01", "spec.macaddress"}, {"00:50:56:00:00:03 00:50:56:00:00:04", "spec.controlPlaneMacPool"},
		{"00:50:56:00:00:05", "PlunderCluster spec.staticMAC"}, {"", ""},
	}
	for i, w := range want {
		if got := plan.Machines[i]; strings.Join(got.MACs, " ") != w.macs || got.PinnedBy != w.by {
			t.Errorf("%s: %v by %q, want %s by %q", got.Machine.Name, got.MACs, got.PinnedBy, w.macs, w.by)
		}
	}
}

func TestHostName(t *testing.T) {
	for _, tt := range []struct{ machine, want string }{
		{"worker", "worker-ab1cd"}, {"rack1.worker", "rack1-worker-ab1cd"},
		{strings.Repeat("a", 56) + "-b-c", strings.Repeat("a", 56) + "-ab1cd"},
	} {
		if got := translate.HostName(tt.machine, "ab1cd"); got != tt.want || len(got) > 63 {
			t.Errorf("HostName(%q) = %q, want %q", tt.machine, got, tt.want)
		}
	}
}

// TestNewPlanProviderWaitsForEndpoint: a bootstrap provider makes no data for several
// control planes without an endpoint, and apply would wait in vain.
func TestNewPlanProviderWaitsForEndpoint(t *testing.T) {
	secret := "cp-data"
	for _, tt := range []struct {
		name   string
		planes int
		change func(*capi.Machine)
		want   string
	}{
		{"one", 1, func(*capi.Machine) {}, ""},
		{"two", 2, func(*capi.Machine) {}, "Cluster default/c: spec.controlPlaneEndpoint: it is needed for 2 control plane Machines: the bootstrap provider"},
		{"two whose data is there", 2, func(m *capi.Machine) { m.DataSecretName = &secret }, ""},
		{"two with an endpoint", 2, func(m *capi.Machine) { m.Cluster.Endpoint = capi.Endpoint{Host: "10.0.0.9", Port: 6443} }, ""},
	} {
		set := &capi.Set{}
		for i := range tt.planes {
			m := machine(fmt.Sprintf("cp%d", i), "v1.34.1", true)
			m.BootstrapConfig = true
			tt.change(m)
			set.Machines = append(set.Machines, m)
		}
		_, err := translate.NewPlan(set, translate.Options{Providers: true})
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
	}
}
