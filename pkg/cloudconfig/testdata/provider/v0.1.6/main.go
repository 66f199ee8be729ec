// Command main writes the bootstrap data that the kubeadm provider of v1alpha2 makes of the
// KubeadmConfig in config.yaml, by the provider's own code. See ../README.md.
package main

import (
	"io/ioutil"
	"log"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	bootstrapv1 "sigs.k8s.io/cluster-api-bootstrap-provider-kubeadm/api/v1alpha2"
	"sigs.k8s.io/cluster-api-bootstrap-provider-kubeadm/cloudinit"
	"sigs.k8s.io/cluster-api-bootstrap-provider-kubeadm/internal/cluster"
	"sigs.k8s.io/cluster-api-bootstrap-provider-kubeadm/kubeadm/v1beta1"
	"sigs.k8s.io/cluster-api/util/secret"
)

func main() {
	in, out := os.Args[1], os.Args[2]
	raw, err := ioutil.ReadFile(filepath.Join(in, "config.yaml"))
	check(err)
	spec := &bootstrapv1.KubeadmConfigSpec{}
	check(yaml.UnmarshalStrict(raw, spec))

	certs := cluster.NewCertificatesForInitialControlPlane(spec.ClusterConfiguration)
	check(certs.Generate())
	hashes, err := certs.GetByPurpose(secret.ClusterCA).Hashes()
	check(err)
	spec.JoinConfiguration.Discovery.BootstrapToken = &v1beta1.BootstrapTokenDiscovery{
		Token: "abcdef.0123456789abcdef", APIServerEndpoint: spec.ClusterConfiguration.ControlPlaneEndpoint, CACertHashes: hashes,
	}
	base := cloudinit.BaseUserData{
		AdditionalFiles: spec.Files, NTP: spec.NTP, PreKubeadmCommands: spec.PreKubeadmCommands,
		PostKubeadmCommands: spec.PostKubeadmCommands, Users: spec.Users,
	}

	data, err := cloudinit.NewInitControlPlane(&cloudinit.ControlPlaneInput{
		BaseUserData: base, Certificates: certs,
		ClusterConfiguration: toYAML(spec.ClusterConfiguration), InitConfiguration: toYAML(spec.InitConfiguration),
	})
	write(out, "init.yaml", data, err)
	data, err = cloudinit.NewNode(&cloudinit.NodeInput{BaseUserData: base, JoinConfiguration: toYAML(spec.JoinConfiguration)})
	write(out, "worker.yaml", data, err)
	spec.JoinConfiguration.ControlPlane = &v1beta1.JoinControlPlane{LocalAPIEndpoint: v1beta1.APIEndpoint{BindPort: 6443}}
	data, err = cloudinit.NewJoinControlPlane(&cloudinit.ControlPlaneJoinInput{
		BaseUserData: base, Certificates: certs, JoinConfiguration: toYAML(spec.JoinConfiguration),
	})
	write(out, "control-plane.yaml", data, err)
}

func toYAML(obj runtime.Object) string {
	text, err := v1beta1.ConfigurationToYAML(obj)
	check(err)
	return text
}

func write(folder, name string, data []byte, err error) {
	check(err)
	check(ioutil.WriteFile(filepath.Join(folder, name), data, 0644))
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
