package v1alpha1_test

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/crd/v1alpha1"
)

// The definitions have the fields that the decoder reads, under the same names.
func TestFieldsAreThoseOfTheDecoder(t *testing.T) {
	for _, tt := range []struct{ ours, theirs reflect.Type }{
		{reflect.TypeFor[v1alpha1.PlunderMachineSpec](), reflect.TypeFor[capi.PlunderMachineSpec]()},
		{reflect.TypeFor[v1alpha1.PlunderClusterSpec](), reflect.TypeFor[capi.PlunderClusterSpec]()},
	} {
		ours, theirs := fields("spec", tt.ours), fields("spec", tt.theirs)
		if !slices.Equal(ours, theirs) {
			t.Errorf("%s has\n%s\nand %s has\n%s", tt.ours, strings.Join(ours, "\n"), tt.theirs, strings.Join(theirs, "\n"))
		}
	}
}

// fields are the paths of all fields of a type, sorted.
func fields(path string, t reflect.Type) []string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct {
		return []string{path}
	}
	var list []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !f.Anonymous {
			name = path + "." + name
		} else {
			name = path
		}
		list = append(list, fields(name, f.Type)...)
	}
	slices.Sort(list)
	return list
}
