package host

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"
)

// document is one object of a YAML file.
type document struct {
	APIVersion string         `json:"apiVersion"`
	Kind       string         `json:"kind"`
	Metadata   map[string]any `json:"metadata"`
	raw        []byte
}

func (d document) name() string {
	s, _ := d.Metadata["name"].(string)
	return s
}

func (d document) namespace() string {
	s, _ := d.Metadata["namespace"].(string)
	return s
}

func (d document) labels() map[string]string {
	given, _ := d.Metadata["labels"].(map[string]any)
	out := map[string]string{}
	for k, v := range given {
		out[k], _ = v.(string)
	}
	return out
}

func documents(b []byte) ([]document, error) {
	var out []document
	for _, part := range regexp.MustCompile(`(?m)^---\s*$`).Split(string(b), -1) {
		d := document{raw: []byte(part)}
		if err := yaml.Unmarshal(d.raw, &d); err != nil {
			return nil, err
		}
		if d.Kind == "" && d.APIVersion == "" && d.Metadata == nil {
			continue // nothing, or comments
		}
		out = append(out, d)
	}
	return out, nil
}

// kubeadmConfig is what is read of the configuration kinds of kubeadm. Unknown
// fields are refused: kubeadm only warns of them, but capplunder should write none.
type kubeadmConfig struct {
	init    *initConfiguration
	cluster *clusterConfiguration
	join    *joinConfiguration
	// cgroupV1: the kubelet configuration permits control groups of version 1.
	cgroupV1 bool
}

type nodeRegistration struct {
	Name                  string           `json:"name"`
	CRISocket             string           `json:"criSocket"`
	KubeletExtraArgs      any              `json:"kubeletExtraArgs"`
	Taints                []map[string]any `json:"taints"`
	IgnorePreflightErrors []string         `json:"ignorePreflightErrors"`
	ImagePullPolicy       string           `json:"imagePullPolicy"`
	ImagePullSerial       *bool            `json:"imagePullSerial"`
}

// extraArg is one of kubelet's arguments, which are a map up to v1beta3 and a list since.
func (r nodeRegistration) extraArg(name string) string {
	switch args := r.KubeletExtraArgs.(type) {
	case map[string]any:
		s, _ := args[name].(string)
		return s
	case []any:
		for _, a := range args {
			if m, ok := a.(map[string]any); ok && m["name"] == name {
				s, _ := m["value"].(string)
				return s
			}
		}
	}
	return ""
}

type apiEndpoint struct {
	AdvertiseAddress string `json:"advertiseAddress"`
	BindPort         int    `json:"bindPort"`
}

type initConfiguration struct {
	APIVersion      string `json:"apiVersion"`
	Kind            string `json:"kind"`
	BootstrapTokens []struct {
		Token       string   `json:"token"`
		TTL         string   `json:"ttl"`
		Description string   `json:"description"`
		Expires     string   `json:"expires"`
		Usages      []string `json:"usages"`
		Groups      []string `json:"groups"`
	} `json:"bootstrapTokens"`
	LocalAPIEndpoint apiEndpoint      `json:"localAPIEndpoint"`
	NodeRegistration nodeRegistration `json:"nodeRegistration"`
	CertificateKey   string           `json:"certificateKey"`
	SkipPhases       []string         `json:"skipPhases"`
	Patches          map[string]any   `json:"patches"`
	Timeouts         map[string]any   `json:"timeouts"`
}

type clusterConfiguration struct {
	APIVersion           string         `json:"apiVersion"`
	Kind                 string         `json:"kind"`
	ClusterName          string         `json:"clusterName"`
	KubernetesVersion    string         `json:"kubernetesVersion"`
	ControlPlaneEndpoint string         `json:"controlPlaneEndpoint"`
	ImageRepository      string         `json:"imageRepository"`
	CertificatesDir      string         `json:"certificatesDir"`
	Etcd                 map[string]any `json:"etcd"`
	ControllerManager    map[string]any `json:"controllerManager"`
	Scheduler            map[string]any `json:"scheduler"`
	DNS                  map[string]any `json:"dns"`
	Proxy                map[string]any `json:"proxy"`
	FeatureGates         map[string]any `json:"featureGates"`
	EncryptionAlgorithm  string         `json:"encryptionAlgorithm"`
	CACertificateLife    string         `json:"caCertificateValidityPeriod"`
	CertificateLife      string         `json:"certificateValidityPeriod"`
	UseHyperKubeImage    bool           `json:"useHyperKubeImage"`
	Networking           struct {
		PodSubnet     string `json:"podSubnet"`
		ServiceSubnet string `json:"serviceSubnet"`
		DNSDomain     string `json:"dnsDomain"`
	} `json:"networking"`
	APIServer struct {
		CertSANs     []string `json:"certSANs"`
		ExtraArgs    any      `json:"extraArgs"`
		ExtraEnvs    []any    `json:"extraEnvs"`
		ExtraVolumes []any    `json:"extraVolumes"`
		Timeout      string   `json:"timeoutForControlPlane"`
	} `json:"apiServer"`
}

type joinConfiguration struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	CACertPath string `json:"caCertPath"`
	Discovery  struct {
		BootstrapToken struct {
			Token             string   `json:"token"`
			APIServerEndpoint string   `json:"apiServerEndpoint"`
			CACertHashes      []string `json:"caCertHashes"`
			Unsafe            bool     `json:"unsafeSkipCAVerification"`
		} `json:"bootstrapToken"`
		TLSBootstrapToken string `json:"tlsBootstrapToken"`
		Timeout           string `json:"timeout"`
	} `json:"discovery"`
	NodeRegistration nodeRegistration  `json:"nodeRegistration"`
	ControlPlane     *joinControlPlane `json:"controlPlane"`
	SkipPhases       []string          `json:"skipPhases"`
	Patches          map[string]any    `json:"patches"`
	Timeouts         map[string]any    `json:"timeouts"`
}

type joinControlPlane struct {
	LocalAPIEndpoint apiEndpoint `json:"localAPIEndpoint"`
	CertificateKey   string      `json:"certificateKey"`
}

// configAPIs are the versions of kubeadm's configuration that a minor reads.
func configAPIs(minor int) []string {
	var out []string
	for _, v := range []struct {
		name        string
		first, last int
	}{{"v1beta1", 13, 21}, {"v1beta2", 15, 26}, {"v1beta3", 22, 35}, {"v1beta4", 31, 99}} {
		if minor >= v.first && minor <= v.last {
			out = append(out, v.name)
		}
	}
	return out
}

// youngFields are fields with the version of the configuration that has them first.
func youngFields(kind string) map[string]string {
	switch kind {
	case "InitConfiguration":
		return map[string]string{"certificateKey": "v1beta2", "skipPhases": "v1beta3", "patches": "v1beta3", "timeouts": "v1beta4"}
	case "ClusterConfiguration":
		return map[string]string{"encryptionAlgorithm": "v1beta4", "caCertificateValidityPeriod": "v1beta4", "certificateValidityPeriod": "v1beta4", "proxy": "v1beta4"}
	case "JoinConfiguration":
		return map[string]string{"skipPhases": "v1beta3", "patches": "v1beta3", "timeouts": "v1beta4"}
	case "controlPlane":
		return map[string]string{"certificateKey": "v1beta2"}
	case "nodeRegistration":
		return map[string]string{"ignorePreflightErrors": "v1beta2", "imagePullPolicy": "v1beta3", "imagePullSerial": "v1beta4"}
	}
	return nil
}

// checkAge refuses fields that a version of the configuration has not yet.
func checkAge(kind, version string, fields map[string]any) error {
	young := youngFields(kind)
	for _, f := range sortedKeys(fields) {
		if first := young[f]; first != "" && version < first {
			return fmt.Errorf("unknown field %q in %s of kubeadm.k8s.io/%s", f, kind, version)
		}
		if sub, ok := fields[f].(map[string]any); ok && (f == "controlPlane" || f == "nodeRegistration") {
			if err := checkAge(f, version, sub); err != nil {
				return err
			}
		}
	}
	return nil
}

// splitEndpoint takes HOST:PORT apart; hosts are IPv4 addresses or names.
func splitEndpoint(s string) (host string, port int, ok bool) {
	host, p, ok := strings.Cut(s, ":")
	port, err := strconv.Atoi(p)
	return host, port, ok && err == nil
}

func minorOf(version string) int {
	f := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(f) < 2 {
		return 0
	}
	n, _ := strconv.Atoi(f[1])
	return n
}

func (c *call) readKubeadmConfig(file string) (kubeadmConfig, error) {
	var cfg kubeadmConfig
	b, err := c.read(file)
	if err != nil {
		return cfg, fmt.Errorf("unable to read config from %q: open %s: %s", file, file, strings.ToLower(errText(err)))
	}
	docs, err := documents(b)
	if err != nil {
		return cfg, fmt.Errorf("error unmarshaling configuration: %w", err)
	}
	_, minor := c.kubeadmVersion()
	for _, d := range docs {
		group, version, _ := strings.Cut(d.APIVersion, "/")
		switch {
		case group == "kubelet.config.k8s.io":
			var k struct {
				FailCgroupV1 *bool `json:"failCgroupV1"`
			}
			if err := yaml.Unmarshal(d.raw, &k); err != nil {
				return cfg, fmt.Errorf("error unmarshaling configuration: %w", err)
			}
			cfg.cgroupV1 = k.FailCgroupV1 != nil && !*k.FailCgroupV1
			continue
		case group == "kubeproxy.config.k8s.io":
			continue
		case group != "kubeadm.k8s.io" || !slices.Contains(configAPIs(minor), version):
			return cfg, fmt.Errorf("your configuration file uses an API spec that this version of kubeadm does not know: %q (kind: %q). kubeadm v1.%d reads %s",
				d.APIVersion, d.Kind, minor, strings.Join(configAPIs(minor), ", "))
		}
		if err := cfg.take(d, version); err != nil {
			return cfg, err
		}
	}
	return cfg, nil
}

// take reads one object of kubeadm's own.
func (k *kubeadmConfig) take(d document, version string) error {
	var err error
	var reg *nodeRegistration
	switch d.Kind {
	case "InitConfiguration":
		k.init = &initConfiguration{}
		err, reg = yaml.UnmarshalStrict(d.raw, k.init), &k.init.NodeRegistration
	case "ClusterConfiguration":
		k.cluster = &clusterConfiguration{}
		err = yaml.UnmarshalStrict(d.raw, k.cluster)
	case "JoinConfiguration":
		k.join = &joinConfiguration{}
		err, reg = yaml.UnmarshalStrict(d.raw, k.join), &k.join.NodeRegistration
	default:
		return fmt.Errorf("no kind %q is registered for version %q", d.Kind, d.APIVersion)
	}
	fields := map[string]any{}
	if err == nil {
		if err = yaml.Unmarshal(d.raw, &fields); err == nil {
			err = checkAge(d.Kind, version, fields)
		}
	}
	if err != nil {
		return fmt.Errorf("error unmarshaling configuration: %w", err)
	}
	if reg != nil && reg.KubeletExtraArgs != nil {
		if _, isList := reg.KubeletExtraArgs.([]any); isList != (version == "v1beta4") {
			return fmt.Errorf("error unmarshaling configuration: nodeRegistration.kubeletExtraArgs has the wrong type for %s", version)
		}
	}
	return nil
}
