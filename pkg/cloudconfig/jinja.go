package cloudconfig

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

var (
	jinjaLine = regexp.MustCompile(`(?i)^##\s*template:\s*jinja\s*$`)
	// expressionForm finds what jinja would act upon. Without an end it is just the beginning.
	expressionForm = regexp.MustCompile(`\{\{[^{}\n]*\}\}|\{[{%#][^\n]{0,60}`)
	// subscriptForm is another way to write a field: ds.meta_data["hostname"].
	subscriptForm = regexp.MustCompile(`\[\s*(?:"([a-z0-9_-]+)"|'([a-z0-9_-]+)')\s*\]`)
)

// render fills the expressions of data that begins with "## template: jinja" in. Without
// that line braces mean nothing.
func render(text []byte, meta Meta) ([]byte, error) {
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	if !jinjaLine.Match(bytes.TrimSpace(first)) {
		return text, nil
	}
	second, _, _ := bytes.Cut(bytes.TrimSpace(rest), []byte("\n"))
	if !bytes.HasPrefix(bytes.ToLower(second), []byte("#cloud-config")) {
		return nil, fmt.Errorf(`bootstrap data does not go on with "#cloud-config" after "## template: jinja"`)
	}
	var bad []string
	out := expressionForm.ReplaceAllStringFunc(string(rest), func(expression string) string {
		inner, ok := strings.CutSuffix(strings.TrimPrefix(expression, "{{"), "}}")
		if value, known := lookUp(inner, meta); ok && known {
			return value
		}
		bad = append(bad, shorten(expression))
		return ""
	})
	if len(bad) > 0 {
		return nil, fmt.Errorf("bootstrap data has the template %s: only hostname, local_hostname, instance_id and local_ipv4 of ds.meta_data are known here", strings.Join(bad, ", "))
	}
	return []byte(out), nil
}

// shorten keeps an expression from showing what stands behind it: the error is not secret.
func shorten(expression string) string {
	const most = 60
	if !strings.HasSuffix(expression, "}}") {
		return expression[:2] + " ..."
	}
	if len(expression) > most {
		return expression[:most] + " ..."
	}
	return expression
}

func lookUp(expression string, meta Meta) (string, bool) {
	name := subscriptForm.ReplaceAllString(strings.TrimSpace(expression), ".$1$2")
	switch strings.ReplaceAll(name, "-", "_") {
	case "ds.meta_data.hostname", "ds.meta_data.local_hostname", "v1.local_hostname", "v1.hostname", "local_hostname":
		return meta.HostName, meta.HostName != ""
	case "ds.meta_data.instance_id", "v1.instance_id", "instance_id":
		return meta.InstanceID, meta.InstanceID != ""
	case "ds.meta_data.local_ipv4", "v1.local_ipv4", "local_ipv4":
		return meta.LocalIPv4, meta.LocalIPv4 != ""
	}
	return "", false
}
