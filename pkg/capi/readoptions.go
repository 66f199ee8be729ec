package capi

import (
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// readOptions reads the fields of a struct of options from a spec, which may have
// others beside them. What is wrong with the values is said by reportOptions.
func readOptions(spec field, options any) {
	spec.fields(reflect.ValueOf(options).Elem())
}

// fieldNames are the names that a struct has in YAML, those of embedded ones included.
func fieldNames(t reflect.Type) []string {
	var list []string
	for i := range t.NumField() {
		f := t.Field(i)
		if f.Anonymous {
			list = append(list, fieldNames(f.Type)...)
			continue
		}
		list = append(list, fieldName(f))
	}
	return list
}

func fieldName(f reflect.StructField) string {
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	return name
}

// fields reads what is below f into a struct.
func (f field) fields(v reflect.Value) {
	t := v.Type()
	for i := range t.NumField() {
		if t.Field(i).Anonymous {
			f.fields(v.Field(i))
			continue
		}
		f.get(fieldName(t.Field(i))).into(v.Field(i))
	}
}

// into reads f into a Go value of one of the types that options have. An object that is
// given counts as given even if it is empty, and may so undo what others have set.
func (f field) into(v reflect.Value) {
	if !f.given() {
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(f.str())
	case reflect.Bool:
		v.SetBool(f.boolean())
	case reflect.Pointer:
		below := reflect.New(v.Type().Elem())
		f.into(below.Elem())
		v.Set(below)
	case reflect.Struct:
		f.only(fieldNames(v.Type())...)
		f.fields(v)
	case reflect.Map: // of strings
		if m := f.strMap(); m != nil {
			v.Set(reflect.ValueOf(m))
		}
	case reflect.Slice: // of strings or of objects
		for _, item := range f.items() {
			var elem any = item.str
			if v.Type().Elem().Kind() == reflect.Map {
				elem = item.object
			}
			v.Set(reflect.Append(v, reflect.ValueOf(elem).Call(nil)[0]))
		}
	default:
		panic("capi: options have a " + v.Kind().String()) // every test reads all options
	}
}

// object is the value of a mapping, nil when it is none.
func (f field) object() map[string]any {
	if !f.given() {
		f.errorf("is empty")
	}
	if !f.mapping() {
		return nil
	}
	m, _ := f.n.value().(map[string]any)
	return m
}

// reportOptions reports what is wrong with options where they were written.
func reportOptions(spec field, problems []OptionError) {
	for _, p := range problems {
		spec.below(p.Field).check(p.Err)
	}
}

// below is the field with a path like "proxy.noProxy[1]".
func (f field) below(path string) field {
	for part := range strings.SplitSeq(path, ".") {
		name, rest, list := strings.Cut(part, "[")
		f = f.get(name)
		if !list {
			continue
		}
		key := strings.TrimSuffix(rest, "]")
		if i, err := strconv.Atoi(key); err == nil {
			if items := f.items(); i < len(items) {
				f = items[i]
			}
			continue
		}
		f = f.get(key)
	}
	return f
}

// withoutEmpty drops the empty entries of the lists of texts.
func withoutEmpty(list []string) []string {
	list = slices.DeleteFunc(list, func(s string) bool { return s == "" })
	if len(list) == 0 {
		return nil
	}
	return list
}
