// Command main writes the bootstrap data that Cluster API's kubeadm provider makes of the
// KubeadmConfig in config.yaml, by the provider's own code. See ../README.md.
package main

import (
	"log"
	"os"
	"path/filepath"

	"github.com/blang/semver/v4"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"

	bootstrapv1 "sigs.k8s.io/cluster-api/api/bootstrap/kubeadm/v1beta2"
	"sigs.k8s.io/cluster-api/bootstrap/kubeadm/pkg/cloudinit"
	"sigs.k8s.io/cluster-api/bootstrap/kubeadm/pkg/types"
	"sigs.k8s.io/cluster-api/bootstrap/kubeadm/pkg/types/upstream"
	"sigs.k8s.io/cluster-api/util/secret"
)

const token = "abcdef.0123456789abcdef"

func main() {
	in, out := os.Args[1], os.Args[2]
	spec, disks := read(in, "config.yaml"), read(in, "config.yaml", "disks.yaml")
	version := semver.MustParse("1.34.1")

	certs := secret.NewCertificatesForInitialControlPlane(&spec.ClusterConfiguration)
	check(certs.Generate())
	hashes := must(certs.GetByPurpose(secret.ClusterCA).Hashes())
	for _, s := range []*bootstrapv1.KubeadmConfigSpec{spec, disks} {
		s.JoinConfiguration.Discovery.BootstrapToken = bootstrapv1.BootstrapTokenDiscovery{
			Token: token, APIServerEndpoint: spec.ClusterConfiguration.ControlPlaneEndpoint, CACertHashes: hashes,
		}
	}

	write(out, "init.yaml", must(cloudinit.NewInitControlPlane(&cloudinit.ControlPlaneInput{
		BaseUserData: data(spec),
		Certificates: certs,
		ClusterConfiguration: must(types.MarshalClusterConfigurationForVersion(&spec.ClusterConfiguration, version, &upstream.AdditionalData{
			KubernetesVersion: ptr.To("v1.34.1"), ClusterName: ptr.To("c1"), DNSDomain: ptr.To("cluster.local"),
			ServiceSubnet: ptr.To("10.128.0.0/12"), PodSubnet: ptr.To("192.168.0.0/16"),
		})),
		InitConfiguration: must(types.MarshalInitConfigurationForVersion(&spec.InitConfiguration, version)),
	})))
	write(out, "worker.yaml", must(cloudinit.NewNode(&cloudinit.NodeInput{
		BaseUserData: data(spec), JoinConfiguration: must(types.MarshalJoinConfigurationForVersion(&spec.JoinConfiguration, version)),
	})))
	write(out, "worker-disks.yaml", must(cloudinit.NewNode(&cloudinit.NodeInput{
		BaseUserData: data(disks), JoinConfiguration: must(types.MarshalJoinConfigurationForVersion(&disks.JoinConfiguration, version)),
	})))
	spec.JoinConfiguration.ControlPlane = &bootstrapv1.JoinControlPlane{LocalAPIEndpoint: bootstrapv1.APIEndpoint{BindPort: 6443}}
	write(out, "control-plane.yaml", must(cloudinit.NewJoinControlPlane(&cloudinit.ControlPlaneJoinInput{
		BaseUserData: data(spec), Certificates: certs, JoinConfiguration: must(types.MarshalJoinConfigurationForVersion(&spec.JoinConfiguration, version)),
	})))
}

func read(folder string, names ...string) *bootstrapv1.KubeadmConfigSpec {
	spec := &bootstrapv1.KubeadmConfigSpec{}
	for _, name := range names {
		check(yaml.UnmarshalStrict(must(os.ReadFile(filepath.Join(folder, name))), spec))
	}
	return spec
}

func data(spec *bootstrapv1.KubeadmConfigSpec) cloudinit.BaseUserData {
	d := cloudinit.BaseUserData{
		AdditionalFiles: spec.Files, BootCommands: spec.BootCommands, PreKubeadmCommands: spec.PreKubeadmCommands,
		PostKubeadmCommands: spec.PostKubeadmCommands, Users: spec.Users, Mounts: spec.Mounts,
	}
	if spec.NTP.IsDefined() {
		d.NTP = &spec.NTP
	}
	if spec.DiskSetup.IsDefined() {
		d.DiskSetup = &spec.DiskSetup
	}
	return d
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
