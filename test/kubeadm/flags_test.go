package kubeadm_test

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"mvdan.cc/sh/v3/syntax"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/test/kubeadm"
)

// TestArguments: every kubeadm command in a script has arguments that the kubeadm of
// that time knows. v1.13 and v1.14 had flags of their own, and there is none of them.
func TestArguments(t *testing.T) {
	t.Parallel()
	help := map[string]string{}
	seen := map[string]bool{}
	asked := map[string]bool{} // most minors have the same scripts
	for minor := 15; minor <= newest; minor++ {
		tool, err := kubeadm.For(minor)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range sites() {
			if minor < s.from || s.name == "ha-pki" {
				continue
			}
			for _, m := range siteMaps(t, minor, s, capi.PKI{}) {
				for _, a := range m.Deployments[0].Actions {
					script := fmt.Sprint(tool.Minor, a.Command)
					if asked[script] || !strings.Contains(a.Command, "kubeadm") {
						continue
					}
					asked[script] = true
					for _, c := range kubeadmCalls(t, a.Command) {
						seen[strings.Join(c.command, " ")] = true
						id := fmt.Sprint(tool.Minor, c.command)
						if help[id] == "" {
							if help[id], _, err = tool.Run(t.Context(), append(slices.Clone(c.command), "--help")...); err != nil {
								t.Fatalf("kubeadm v1.%d %v: %v", tool.Minor, c.command, err)
							}
						}
						for _, argument := range c.arguments {
							if problem := unknown(help[id], argument); problem != "" {
								t.Errorf("v1.%d, %s, %s: kubeadm %s: %s", minor, s.name, a.Name, strings.Join(c.command, " "), problem)
							}
						}
					}
				}
			}
		}
	}
	for _, want := range []string{"init", "join", "reset", "init phase upload-certs", "config images pull"} {
		if !seen[want] {
			t.Errorf("no script runs kubeadm %s", want)
		}
	}
}

// unknown says what a command's help does not know of an argument, or "".
func unknown(help, argument string) string {
	flag, value, _ := strings.Cut(argument, "=")
	if !regexp.MustCompile(`(?m)^ +(-[a-z], )?` + flag + `[ ,]|^ +` + flag + `, `).MatchString(help) {
		return "there is no " + flag
	}
	if flag == "--skip-phases" {
		for phase := range strings.SplitSeq(value, ",") {
			// The help does not show the phase wait-control-plane before v1.31: it is hidden there.
			if phase != "wait-control-plane" && !regexp.MustCompile(`(?m)^ *`+phase+` `).MatchString(help) {
				return "there is no phase " + phase
			}
		}
	}
	return ""
}

// call is a kubeadm command of a script.
type call struct{ command, arguments []string }

// kubeadmCalls are the kubeadm commands that an action's script may run.
func kubeadmCalls(t *testing.T, command string) []call {
	t.Helper()
	outer := parse(t, command)
	var script string
	syntax.Walk(outer, func(n syntax.Node) bool {
		if q, ok := n.(*syntax.CallExpr); ok && len(q.Args) == 3 {
			script = literal(q.Args[2])
		}
		return script == ""
	})
	var calls []call
	syntax.Walk(parse(t, script), func(n syntax.Node) bool {
		c, ok := n.(*syntax.CallExpr)
		if !ok {
			return true
		}
		words := make([]string, len(c.Args))
		for i, w := range c.Args {
			words[i] = literal(w)
		}
		at := slices.Index(words, "kubeadm")
		if at < 0 || at > 2 || words[0] == "apt-mark" || strings.Contains(strings.Join(words[:at], " "), "install") {
			return true
		}
		var found call
		for _, w := range words[at+1:] {
			switch {
			case strings.HasPrefix(w, "-"):
				found.arguments = append(found.arguments, w)
			case len(found.arguments) == 0:
				found.command = append(found.command, w)
			}
		}
		calls = append(calls, found)
		return true
	})
	return calls
}

func parse(t *testing.T, text string) *syntax.File {
	t.Helper()
	f, err := syntax.NewParser(syntax.Variant(syntax.LangBash)).Parse(strings.NewReader(text), "")
	if err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return f
}

// literal is a word without what the shell puts in.
func literal(w *syntax.Word) string {
	var b strings.Builder
	for _, p := range w.Parts {
		switch p := p.(type) {
		case *syntax.Lit:
			b.WriteString(strings.ReplaceAll(p.Value, `\'`, "'"))
		case *syntax.SglQuoted:
			b.WriteString(p.Value)
		default:
			b.WriteString("*")
		}
	}
	return b.String()
}
