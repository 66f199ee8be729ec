package kube

import (
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	structuralschema "k8s.io/apiextensions-apiserver/pkg/apiserver/schema"
	"k8s.io/apiextensions-apiserver/pkg/apiserver/schema/pruning"
)

// Prune drops from an object everything that the cluster would drop of it when it is
// written in this version: fields that the version does not know and, without a
// conversion webhook, those that the storage version does not know (CAPI contract
// section 13). Metadata stays as it is. What is left can be compared with what the
// cluster answers, without a write to find out.
func (r Resource) Prune(version string, o map[string]any) {
	prune(r.Schemas[version], o)
	if !r.Converts && version != r.Storage {
		prune(r.Schemas[r.Storage], o)
	}
}

// prune is what the API server itself does; nil is a version that prunes nothing.
func prune(s *structuralschema.Structural, o map[string]any) {
	if s != nil {
		pruning.Prune(o, s, true)
	}
}

// structural is the schema of a version; nil where the API server has none to prune by.
func structural(v apiextensionsv1.CustomResourceDefinitionVersion) *structuralschema.Structural {
	if v.Schema == nil || v.Schema.OpenAPIV3Schema == nil {
		return nil
	}
	internal := &apiextensions.JSONSchemaProps{}
	if apiextensionsv1.Convert_v1_JSONSchemaProps_To_apiextensions_JSONSchemaProps(v.Schema.OpenAPIV3Schema, internal, nil) != nil {
		return nil
	}
	s, err := structuralschema.NewStructural(internal)
	if err != nil {
		return nil
	}
	return s
}
