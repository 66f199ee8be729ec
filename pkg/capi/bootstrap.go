package capi

// FormatCloudConfig is the format of bootstrap data that names none.
const FormatCloudConfig = "cloud-config"

// BootstrapData is what a machine is to run to become a node, as a bootstrap provider
// makes it (CAPI contract, section 9). It is secret.
type BootstrapData struct {
	Format string // FormatCloudConfig, "ignition", ...
	Value  []byte // the text itself, not base64
}

// String implements fmt.Stringer; it shows nothing.
func (b *BootstrapData) String() string { return "bootstrap data (***)" }

// GoString implements fmt.GoStringer.
func (b *BootstrapData) GoString() string { return b.String() }

// MarshalJSON implements json.Marshaler.
func (b *BootstrapData) MarshalJSON() ([]byte, error) { return []byte(`"***"`), nil }

// Bootstrapped reports whether bootstrap data makes the machine a node, instead of a
// kubeadm configuration of ours.
func (m *Machine) Bootstrapped() bool {
	return m.GivenBootstrap != nil || m.BootstrapData != "" ||
		m.DataSecretName != nil && *m.DataSecretName != "" ||
		m.DataSecretName == nil && m.BootstrapConfig
}

// KeyPair is a certificate (or, for service accounts, a public key) and its private
// key, both PEM. It is secret.
type KeyPair struct{ Cert, Key []byte }

// String implements fmt.Stringer; it shows nothing.
func (KeyPair) String() string { return "key pair (***)" }

// GoString implements fmt.GoStringer.
func (k KeyPair) GoString() string { return k.String() }

// PKI are the keys of a cluster's control plane, under the names that Cluster API has
// for them (CAPI contract, section 9).
type PKI map[string]KeyPair

// Keys of a PKI.
const (
	PKICluster        = "ca"
	PKIEtcd           = "etcd"
	PKIFrontProxy     = "proxy"
	PKIServiceAccount = "sa"
)
