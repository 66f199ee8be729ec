package state

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/plunder-app/capplunder/pkg/capi"
)

const (
	annotationPrefix = "capplunder.plunder-app.io/"
	// AnnotationRecord holds a capi.Record (on a PlunderMachine) or a
	// capi.ClusterRecord (on a Cluster) as JSON. It alone is read back: spec and
	// status show the same to people and to programs that know Cluster API, but a
	// record in one annotation of one object is written whole or not at all.
	AnnotationRecord = annotationPrefix + "record"
	// annotationApplied is kubectl's copy of a manifest, with any secret in it.
	annotationApplied = "kubectl.kubernetes.io/last-applied-configuration"

	// redactedPrefix begins what is stored in place of a secret: its SHA-256, so
	// that a change can be seen but not what it was.
	redactedPrefix = "redacted, sha256:"
)

// object is a Kubernetes object as decoded JSON, numbers as json.Number.
type object map[string]any

// decodeObject reads YAML or JSON, strictly.
func decodeObject(data []byte) (object, error) {
	raw, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, err
	}
	return decodeJSON(raw)
}

func decodeJSON(raw []byte) (object, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var o object
	if err := dec.Decode(&o); err != nil {
		return nil, err
	}
	if o == nil {
		return nil, fmt.Errorf("no object in it")
	}
	return o, nil
}

// encode writes the object as YAML, fields in alphabetical order.
func (o object) encode() ([]byte, error) {
	raw, err := json.Marshal(o)
	if err != nil {
		return nil, err
	}
	return yaml.JSONToYAML(raw)
}

// at returns the mapping at the path, or nil.
func (o object) at(path ...string) map[string]any {
	m := map[string]any(o)
	for _, key := range path {
		next, ok := m[key].(map[string]any)
		if !ok {
			return nil
		}
		m = next
	}
	return m
}

// in returns the mapping at the path and creates what is missing of it.
func (o object) in(path ...string) map[string]any {
	m := map[string]any(o)
	for _, key := range path {
		next, ok := m[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[key] = next
		}
		m = next
	}
	return m
}

func (o object) text(path ...string) string {
	last := len(path) - 1
	s, _ := o.at(path[:last]...)[path[last]].(string)
	return s
}

// version is the API version without its group.
func (o object) version() string {
	v := o.text("apiVersion")
	return v[strings.LastIndexByte(v, '/')+1:]
}

// infraKey is the object that the object's spec.infrastructureRef names. Cluster
// API wants it in the same namespace.
func (o object) infraKey() (capi.Key, bool) {
	k := capi.Key{Namespace: o.text("metadata", "namespace"), Name: o.text("spec", "infrastructureRef", "name")}
	return k, k.Name != ""
}

// manifest is a given object made ready for the store: with its full name, and
// without what is not the user's to give (status, our annotations but the one that
// protects). base is used
// when the original object is not at hand.
func manifest(kind, apiVersion string, key capi.Key, original map[string]any, base object) (object, error) {
	src := object(original)
	if src == nil {
		src = base
	}
	raw, err := json.Marshal(src)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", kind, key, err)
	}
	o, err := decodeJSON(raw) // a deep copy
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", kind, key, err)
	}
	o["apiVersion"], o["kind"] = apiVersion, kind
	delete(o, "status")
	meta := o.in("metadata")
	meta["name"], meta["namespace"] = key.Name, key.Namespace
	if annotations := o.at("metadata", "annotations"); annotations != nil {
		for name := range annotations {
			ours := strings.HasPrefix(name, annotationPrefix) && (name != capi.AnnotationProtected || !protects(o))
			if ours || name == annotationApplied {
				delete(annotations, name)
			}
		}
	}
	if len(o.at("metadata", "annotations")) == 0 {
		delete(meta, "annotations")
	}
	return o, nil
}

// redacted is a Machine's manifest without its bootstrap data.
func redacted(o object, err error) (object, error) {
	if bootstrap := o.at("spec", "bootstrap"); bootstrap != nil {
		if data, ok := bootstrap["data"]; ok {
			bootstrap["data"] = redact(data)
		}
	}
	return o, err
}

// redact replaces bootstrap data, which carries join tokens and passwords.
func redact(data any) any {
	text, ok := data.(string)
	if !ok {
		if data == nil {
			return nil
		}
		raw, err := json.Marshal(data)
		if err != nil {
			return redactedPrefix + "?"
		}
		text = string(raw)
	}
	if text == "" || strings.HasPrefix(text, redactedPrefix) {
		return text
	}
	sum := sha256.Sum256([]byte(text))
	return redactedPrefix + hex.EncodeToString(sum[:])
}

func clusterManifest(c *capi.Cluster) (object, error) {
	base := object{"spec": map[string]any{}}
	if c.Infra != nil {
		base.in("spec")["infrastructureRef"] = reference(c.APIVersion, "PlunderCluster", c.Infra.Name)
	}
	return manifest("Cluster", c.APIVersion, c.Key, c.Object, base)
}

func plunderClusterManifest(p *capi.PlunderCluster) (object, error) {
	return manifest("PlunderCluster", plunderAPIVersion, p.Key, p.Object, object{"spec": p.Spec})
}

func machineManifest(m *capi.Machine) (object, error) {
	base := object{"metadata": map[string]any{"annotations": m.Annotations}, "spec": map[string]any{
		"bootstrap":         map[string]any{},
		"clusterName":       m.ClusterName,
		"infrastructureRef": reference(m.APIVersion, "PlunderMachine", m.Infra.Name),
	}}
	if m.Version != "" {
		base.in("spec")["version"] = m.Version
	}
	if m.BootstrapData != "" {
		base.in("spec", "bootstrap")["data"] = m.BootstrapData
	}
	return manifest("Machine", m.APIVersion, m.Key, m.Object, base)
}

func plunderMachineManifest(p *capi.PlunderMachine) (object, error) {
	base := object{"metadata": map[string]any{"annotations": p.Annotations}, "spec": p.Spec}
	return manifest("PlunderMachine", plunderAPIVersion, p.Key, p.Object, base)
}

// reference is an infrastructureRef in an object of this API version (CAPI contract
// section 2).
func reference(in, kind, name string) map[string]any {
	if strings.HasSuffix(in, "/v1beta2") {
		return map[string]any{"apiGroup": capi.GroupInfrastructure, "kind": kind, "name": name}
	}
	return map[string]any{"apiVersion": plunderAPIVersion, "kind": kind, "name": name}
}

const plunderAPIVersion = capi.GroupInfrastructure + "/" + capi.VersionPlunder

// carryOver puts the status and the annotations of earlier runs into a newly
// given manifest.
func carryOver(given, stored object) {
	if status, ok := stored["status"]; ok {
		given["status"] = deepCopy(status) // stored is compared with given later
	}
	for name, value := range stored.at("metadata", "annotations") {
		if strings.HasPrefix(name, annotationPrefix) {
			given.in("metadata", "annotations")[name] = value
		}
	}
}

func deepCopy(value any) any {
	switch value := value.(type) {
	case map[string]any:
		c := make(map[string]any, len(value))
		for k, v := range value {
			c[k] = deepCopy(v)
		}
		return c
	case []any:
		c := make([]any, len(value))
		for i, v := range value {
			c[i] = deepCopy(v)
		}
		return c
	default:
		return value
	}
}
