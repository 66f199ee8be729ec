package kube

import (
	"encoding/json"
	"testing"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"sigs.k8s.io/yaml"
)

func TestPrune(t *testing.T) {
	schema := func(text string) *structuralschema.Structural {
		s := &apiextensionsv1.JSONSchemaProps{}
		if err := yaml.Unmarshal([]byte(text), s); err != nil {
			t.Fatal(err)
		}
		return structural(apiextensionsv1.CustomResourceDefinitionVersion{Schema: &apiextensionsv1.CustomResourceValidation{OpenAPIV3Schema: s}})
	}
	r := Resource{
		Storage: "v2",
		Schemas: map[string]*structuralschema.Structural{
			"v1": schema(`
type: object
properties:
  spec:
    type: object
    properties:
      a: {type: string}
      onlyInV1: {type: string}
      list: {type: array, items: {type: object, properties: {x: {type: string}}}}
      labels: {type: object, additionalProperties: {type: string}}
      open: {type: object, x-kubernetes-preserve-unknown-fields: true, properties: {closed: {type: object, properties: {x: {type: string}}}}}
`),
			"v2": schema(`
type: object
properties:
  spec:
    type: object
    properties:
      a: {type: string}
      list: {type: array, items: {type: object, properties: {x: {type: string}}}}
      labels: {type: object, additionalProperties: true}
      open: {type: object, x-kubernetes-preserve-unknown-fields: true}
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
