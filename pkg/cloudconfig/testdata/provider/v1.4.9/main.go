// Command main writes the bootstrap data that Cluster API's kubeadm provider makes of the
// KubeadmConfig in config.yaml, by the provider's own code. See ../README.md.
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/blang/semver"
	"sigs.k8s.io/yaml"

	bootstrapv1 "sigs.k8s.io/cluster-api/bootstrap/kubeadm/api/v1beta1"
	"sigs.k8s.io/cluster-api/bootstrap/kubeadm/internal/cloudinit"
	types "sigs.k8s.io/cluster-api/bootstrap/kubeadm/types"
	"sigs.k8s.io/cluster-api/util/secret"
)

func main() {
	in, out := os.Args[1], os.Args[2]
	spec := &bootstrapv1.KubeadmConfigSpec{}
	check(yaml.UnmarshalStrict(must(os.ReadFile(filepath.Join(in, "config.yaml"))), spec))
	version := semver.MustParse("1.26.15")

	certs := secret.NewCertificatesForInitialControlPlane(spec.ClusterConfiguration)
	check(certs.Generate())
	spec.JoinConfiguration.Discovery.BootstrapToken = &bootstrapv1.BootstrapTokenDiscovery{
		Token: "abcdef.0123456789abcdef", APIServerEndpoint: spec.ClusterConfiguration.ControlPlaneEndpoint,
		CACertHashes: must(certs.GetByPurpose(secret.ClusterCA).Hashes()),
	}
	base := cloudinit.BaseUserData{
		AdditionalFiles: spec.Files, NTP: spec.NTP, PreKubeadmCommands: spec.PreKubeadmCommands,
		PostKubeadmCommands: spec.PostKubeadmCommands, Users: spec.Users,
	}

	write(out, "init.yaml", must(cloudinit.NewInitControlPlane(&cloudinit.ControlPlaneInput{
		BaseUserData: base, Certificates: certs,
		ClusterConfiguration: must(types.MarshalClusterConfigurationForVersion(spec.ClusterConfiguration, version)),
		InitConfiguration:    must(types.MarshalInitConfigurationForVersion(spec.InitConfiguration, version)),
	})))
	write(out, "worker.yaml", must(cloudinit.NewNode(&cloudinit.NodeInput{
		BaseUserData: base, JoinConfiguration: must(types.MarshalJoinConfigurationForVersion(spec.JoinConfiguration, version)),
	})))
	spec.JoinConfiguration.ControlPlane = &bootstrapv1.JoinControlPlane{LocalAPIEndpoint: bootstrapv1.APIEndpoint{BindPort: 6443}}
	write(out, "control-plane.yaml", must(cloudinit.NewJoinControlPlane(&cloudinit.ControlPlaneJoinInput{
		BaseUserData: base, Certificates: certs, JoinConfiguration: must(types.MarshalJoinConfigurationForVersion(spec.JoinConfiguration, version)),
	})))
}

func write(folder, name string, data []byte) {
	check(os.WriteFile(filepath.Join(folder, name), data, 0o644))
}

func must[T any](v T, err error) T {
	check(err)
	return v
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
