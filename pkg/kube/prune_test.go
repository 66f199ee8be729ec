package kube

import (
	"encoding/json"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	"sigs.k8s.io/yaml"
)

func TestPrune(t *testing.T) {
	schema := func(text string) *apiextensionsv1.JSONSchemaProps {
		s := &apiextensionsv1.JSONSchemaProps{}
		if err := yaml.Unmarshal([]byte(text), s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	r := Resource{
		Storage: "v2",
		Schemas: map[string]*apiextensionsv1.JSONSchemaProps{
			"v1": schema(`
properties:
  spec:
    properties:
      a: {type: string}
      onlyInV1: {type: string}
      list: {items: {properties: {x: {type: string}}}}
      labels: {additionalProperties: {type: string}}
      open: {x-kubernetes-preserve-unknown-fields: true, properties: {closed: {properties: {x: {type: string}}}}}
`),
			"v2": schema(`
properties:
  spec:
    properties:
      a: {type: string}
      list: {items: {properties: {x: {type: string}}}}
      labels: {additionalProperties: true}
      open: {x-kubernetes-preserve-unknown-fields: true}
`),
		},
	}
	const full = `{"apiVersion":"g/v1","kind":"K","metadata":{"name":"n"},"spec":{"a":"1","b":"2","onlyInV1":"3","list":[{"x":"1","y":"2"}],
		"labels":{"l":"1"},"open":{"closed":{"x":"1","y":"2"},"z":"3"}},"status":{"ready":true}}`
	for _, tt := range []struct {
		name     string
		converts bool
		want     string
	}{
		{
			"without a webhook", false,
			`{"apiVersion":"g/v1","kind":"K","metadata":{"name":"n"},"spec":{"a":"1","labels":{"l":"1"},"list":[{"x":"1"}],"open":{"closed":{"x":"1"},"z":"3"}}}`,
		},
		{
			"with one", true,
			`{"apiVersion":"g/v1","kind":"K","metadata":{"name":"n"},"spec":{"a":"1","labels":{"l":"1"},"list":[{"x":"1"}],"onlyInV1":"3","open":{"closed":{"x":"1"},"z":"3"}}}`,
		},
	} {
		var o map[string]any
		if err := json.Unmarshal([]byte(full), &o); err != nil {
			t.Fatal(err)
		}
		r.Converts = tt.converts
		r.Prune("v1", o)
		got, err := json.Marshal(o)
		if err != nil || string(got) != tt.want {
			t.Errorf("%s: %v\ngot  %s\nwant %s", tt.name, err, got, tt.want)
		}
	}
}
