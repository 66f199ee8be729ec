package translate_test

import (
	"errors"
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

func TestNewPlanRefusals(t *testing.T) {
	old, secret, named := machine("old", "v1.14.2", false), machine("secret", "v1.34.1", false), machine("named", "v1.34.1", false)
	secret.BootstrapData = "I2Nsb3VkLWNvbmZpZw=="
	data := "bootstrap-named"
	named.DataSecretName = &data
	set := &capi.Set{Machines: []*capi.Machine{old, secret, named, machine("cp1", "v1.34.1", true), machine("cp2", "v1.34.1", true), machine("new", "v2.0.0", false)}}
	_, err := translate.NewPlan(set, translate.Options{})
	var bad *capi.InputError
	if !errors.As(err, &bad) || len(bad.Problems) != 5 {
		t.Fatalf("want 5 problems at once: %v", err)
	}
	for _, text := range []string{
		"no public package repository serves it (oldest: v1.24.0)", "spec.repo.apt", "--skip-kubernetes",
		"spec.bootstrap.data", "spec.bootstrap.dataSecretName", "more than one control plane Machine (also default/cp1)", "v2.0.0: the oldest",
	} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in\n%v", text, err)
		}
	}
	if strings.Contains(err.Error(), secret.BootstrapData) {
		t.Error("bootstrap data is a secret and must not be in an error")
	}
}

func TestNewPlanMirrorAllowsOldVersions(t *testing.T) {
	m := machine("old", "v1.14.2", true)
	m.Infra.Spec.Repo = &capi.PackageRepo{Apt: "deb https://mirror.example/ kubernetes-xenial main"}
	if _, err := translate.NewPlan(&capi.Set{Machines: []*capi.Machine{m}}, translate.Options{}); err != nil {
		t.Fatal(err)
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
