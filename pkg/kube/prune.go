package kube

import (
	"slices"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
)

// Prune drops from an object everything that the cluster would drop of it when it is
// written in this version: fields that the version does not know and, without a
// conversion webhook, those that the storage version does not know (CAPI contract
// section 13). Metadata stays as it is. What is left can be compared with what the
// cluster answers, without a write to find out.
func (r Resource) Prune(version string, o map[string]any) {
	prune(r.Schemas[version], o, true)
	if !r.Converts && version != r.Storage {
		prune(r.Schemas[r.Storage], o, true)
	}
}

// prune follows the rules of structural schemas.
func prune(s *apiextensionsv1.JSONSchemaProps, value any, root bool) {
	if s == nil {
		return
	}
	switch value := value.(type) {
	case []any:
		if s.Items == nil {
			return
		}
		for _, item := range value {
			prune(s.Items.Schema, item, false)
		}
	case map[string]any:
		keep := s.XPreserveUnknownFields != nil && *s.XPreserveUnknownFields
		for name, field := range value {
			if root && slices.Contains([]string{"apiVersion", "kind", "metadata"}, name) {
				continue
			}
			if property, ok := s.Properties[name]; ok {
				prune(&property, field, false)
				continue
			}
			switch {
			case s.AdditionalProperties != nil && (s.AdditionalProperties.Allows || s.AdditionalProperties.Schema != nil):
				prune(s.AdditionalProperties.Schema, field, false)
			case !keep:
				delete(value, name)
			}
		}
	}
}
