package capi

import (
	"cmp"
	"encoding/base64"
	"slices"
)

// secret keeps a Secret until the Machines are known: it may hold the bootstrap data of
// one. What is in it never shows in a message.
func (d *decoder) secret(in *input) bool {
	meta := in.at("metadata")
	if meta.n == nil || meta.n.kind != mapKind {
		return false
	}
	in.key = Key{
		Namespace: cmp.Or(meta.get("namespace").quiet(), d.opts.Namespace, d.opts.DefaultNamespace, DefaultNamespace),
		Name:      meta.get("name").quiet(),
	}
	if in.key.Name == "" {
		return false
	}
	d.secrets = append(d.secrets, in)
	return true
}

// linkSecrets gives Machines the bootstrap data of their Secrets, and says which Secrets
// are left out.
func (d *decoder) linkSecrets() {
	for i, in := range d.secrets {
		var machines []*machineInput
		for _, m := range d.machines {
			if m.DataSecretName != nil && (Key{m.Namespace, *m.DataSecretName}) == in.key {
				machines = append(machines, m)
			}
		}
		switch first := slices.IndexFunc(d.secrets, func(o *input) bool { return o.key == in.key }); {
		case len(machines) == 0:
			d.ignore(in, "")
		case first < i:
			in.at("metadata", "name").errorf("is given twice, first as %s", d.secrets[first].ref(in, 0))
		default:
			data := bootstrapData(in, machines[0])
			for _, m := range machines {
				m.GivenBootstrap = data
			}
		}
	}
}

// bootstrapData reads the keys value and format, which the bootstrap contract names
// (CAPI contract, section 9).
func bootstrapData(in *input, m *machineInput) *BootstrapData {
	value, format := secretKey(in, "value"), secretKey(in, "format")
	if len(value) == 0 {
		f := in.at("stringData", "value")
		if !f.given() {
			f = in.at("data", "value")
		}
		f.required(m.in.ref(in, 0) + " takes its bootstrap data from it")
		return nil
	}
	return &BootstrapData{Format: cmp.Or(string(format), FormatCloudConfig), Value: value}
}

// secretKey is the value of a key: stringData comes before data, which is base64.
func secretKey(in *input, name string) []byte {
	if f := in.at("stringData", name); f.given() {
		return []byte(secretText(f))
	}
	f := in.at("data", name)
	text := secretText(f)
	value, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		f.errorf("is not base64")
	}
	return value
}
