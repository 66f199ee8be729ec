package capi

import (
	"reflect"
	"slices"
	"strings"
)

// machineInput is a Machine and where it was written.
type machineInput struct {
	*Machine
	in    *input
	infra string // name of its PlunderMachine
}

// plunderMachineInput is a PlunderMachine and where it was written.
type plunderMachineInput struct {
	*PlunderMachine
	in *input
	by *machineInput // the Machine that refers to it
}

// machine reads a Machine (CAPI contract: cluster.x-k8s.io, all versions). Fields
// that are not ours stay in Object.
func (d *decoder) machine(in *input) {
	meta, spec := in.at("metadata"), in.at("spec")
	bootstrap := spec.get("bootstrap")
	m := &Machine{
		Key:           in.key,
		APIVersion:    in.apiVersion,
		Labels:        meta.get("labels").strMap(),
		Annotations:   meta.get("annotations").strMap(),
		Version:       spec.get("version").parse(ParseVersion),
		BootstrapData: secretText(bootstrap.get("data")),
		ProviderID:    providerID(spec.get("providerID")),
		Origin:        in.origin,
	}
	if f := bootstrap.get("dataSecretName"); f.given() {
		name := f.checked(checkName)
		m.DataSecretName = &name
	}
	if ref := bootstrap.get("configRef"); ref.mapping() {
		m.BootstrapConfig = ref.get("kind").str() != "" || ref.get("name").str() != ""
	}
	_, m.Paused = m.Annotations[AnnotationPaused]
	m.ControlPlane = controlPlane(in, m.Labels)
	m.ClusterName = clusterName(in, m.Labels)
	m.Object = in.object()

	ref := spec.get("infrastructureRef")
	infra := d.reference(in, ref, "PlunderMachine")
	ref.required("it names the PlunderMachine")
	d.machines = append(d.machines, &machineInput{Machine: m, in: in, infra: infra})
}

// secretText reads a string that must not show in a message.
func secretText(f field) string {
	if f.given() && (f.n.kind != scalarKind || f.n.tag != "!!str") {
		f.errorf("must be a string, not %s", f.n.what())
		return ""
	}
	return f.str()
}

// providerID reads a provider ID of ours and returns it in its one form.
func providerID(f field) string {
	return f.parse(func(s string) (string, error) {
		mac, err := ParseProviderID(s)
		if err != nil {
			return "", err
		}
		return ProviderID(mac), nil
	})
}

// controlPlane reads the role: in v1alpha2 the label must have a value, later its
// presence is enough (CAPI contract).
func controlPlane(in *input, labels map[string]string) bool {
	value, ok := labels[LabelControlPlane]
	if !ok {
		return false
	}
	f := in.at("metadata", "labels").get(LabelControlPlane)
	if in.version == "v1alpha2" && value == "" {
		f.warnf("is empty, which in v1alpha2 means a worker: write \"true\" for a control plane machine")
		return false
	}
	if slices.Contains([]string{"false", "no", "off", "0"}, strings.ToLower(value)) {
		f.warnf("any value makes this a control plane machine, even %s: remove the label for a worker", quote(value))
	}
	return true
}

// clusterName reads the name of the cluster: a label in v1alpha2, later a field,
// with which the label must agree if it is there.
func clusterName(in *input, labels map[string]string) string {
	label := in.at("metadata", "labels").get(LabelCluster)
	spec := in.at("spec", "clusterName")
	fromLabel, fromSpec := labels[LabelCluster], spec.checked(checkLabelName)
	if in.version == "v1alpha2" {
		switch {
		case fromLabel == "" && spec.given():
			label.required("in v1alpha2 it names the cluster, not spec.clusterName")
		case fromLabel == "":
			label.required("it names the cluster")
		case fromSpec != "" && fromSpec != fromLabel:
			spec.errorf("%s is not the cluster that the label %s names, %s", quote(fromSpec), LabelCluster, quote(fromLabel))
		}
		return fromLabel
	}
	switch {
	case fromSpec == "":
		spec.required("it names the cluster (the label " + LabelCluster + " alone is v1alpha2)")
	case fromSpec != "" && label.given() && fromLabel != fromSpec:
		label.errorf("%s is not the cluster that spec.clusterName names, %s", quote(fromLabel), quote(fromSpec))
	}
	return fromSpec
}

// plunderMachine reads a PlunderMachine. It is ours, so unknown fields are errors.
func (d *decoder) plunderMachine(in *input) {
	in.at().only("apiVersion", "kind", "metadata", "spec", "status")
	meta, spec := in.at("metadata"), in.at("spec")
	ofCluster := fieldNames(reflect.TypeFor[ClusterOptions]())
	spec.only(append(fieldNames(reflect.TypeFor[PlunderMachineSpec]()), ofCluster...)...)
	for _, name := range ofCluster {
		if f := spec.get(name); f.given() && !in.lenient() {
			f.errorf("is a field of the PlunderCluster: all machines of a cluster have it the same")
		}
	}
	p := &PlunderMachine{
		Key:         in.key,
		Labels:      meta.get("labels").strMap(),
		Annotations: meta.get("annotations").strMap(),
		Spec: PlunderMachineSpec{
			ProviderID:          providerID(spec.get("providerID")),
			ControlPlaneMacPool: macPool(spec.get("controlPlaneMacPool")),
			IPAddress:           spec.get("ipaddress").checked(checkIPv4),
			MACAddress:          spec.get("macaddress").parse(ParseMAC),
			DeploymentType:      spec.get("deploymentType").checked(checkDeploymentType),
		},
		Origin: in.origin,
	}
	d.installOptions(spec, &p.Spec.InstallOptions)
	if p.Spec.DeploymentType == "" {
		p.Spec.DeploymentType = DefaultDeploymentType
	}
	p.Object = in.object()
	d.plunderMachines = append(d.plunderMachines, &plunderMachineInput{PlunderMachine: p, in: in})
}

// installOptions reads what PlunderMachine and PlunderCluster have in common.
func (d *decoder) installOptions(spec field, o *InstallOptions) {
	readOptions(spec, o)
	reportOptions(spec, o.Problems())
	if o.Proxy == nil {
		return
	}
	for _, p := range []struct{ name, value string }{{"http", o.Proxy.HTTP}, {"https", o.Proxy.HTTPS}} {
		if hasPassword(p.value) {
			spec.get("proxy").get(p.name).errorf("has a password, which would be stored in clear: give the proxy by CAPPLUNDER_%s_PROXY instead", strings.ToUpper(p.name))
		}
	}
	o.Proxy.NoProxy = withoutEmpty(o.Proxy.NoProxy)
}
