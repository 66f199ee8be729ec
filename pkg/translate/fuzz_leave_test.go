package translate_test

import (
	"strings"
	"testing"
	"time"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// FuzzLeave: a name or address from outside is refused, or is a word and nothing more.
func FuzzLeave(f *testing.F) {
	for _, evil := range []string{"w-1", "w.example", "10.0.0.7", "", "$(reboot)", "'; reboot; '", "a b", "a\nb", "*", "-A", "--all", "a|b", `a\`, "{{NODE}}", "::1", "010.0.0.1"} {
		f.Add(evil)
	}
	in := harmless()
	build := map[string]func(v string) (wire.Map, error){
		"drain":  func(v string) (wire.Map, error) { return translate.DrainMap("job", in.target(), v, time.Minute) },
		"node":   func(v string) (wire.Map, error) { return translate.DeleteNodeMap("job", in.target(), v) },
		"member": func(v string) (wire.Map, error) { return translate.RemoveMemberMap("job", in.target(), v) },
	}
	shapes := map[string]string{}
	for name, b := range build {
		m, err := b("10.0.0.7")
		if err != nil {
			f.Fatal(err)
		}
		_, text := script(f, m.Deployments[0].Actions[1])
		shapes[name] = shape(f, text)
	}
	f.Fuzz(func(t *testing.T, value string) {
		for name, b := range build {
			m, err := b(value)
			if err != nil {
				continue
			}
			checkMap(t, name, m, in)
			if _, text := script(t, m.Deployments[0].Actions[1]); shape(t, text) != shapes[name] {
				t.Errorf("%s has another structure:\n%s", name, text)
			}
		}
	})
}

// FuzzReadLook: whatever a control plane prints, members that are not listed are not made up,
// and what can't be read keeps every member where it is.
func FuzzReadLook(f *testing.F) {
	const ok = "\ncapplunder-look ok members=known external="
	f.Add("capplunder-node cp-1|u|v1.34.1||True|KubeletReady||10.0.0.10 fd00::10|{\"node-role.kubernetes.io/control-plane\":\"\"}" + ok)
	f.Add("capplunder-member 8e9e05c52164694d, started, cp-1, https://10.0.0.10:2380, https://10.0.0.10:2379, false\ncapplunder-health https://10.0.0.10:2379 is healthy: x" + ok)
	f.Add("capplunder-member 1, unstarted, , https://10.0.0.11:2380,https://10.0.0.12:2380, , true" + ok)
	f.Add("capplunder-member , , , , , " + ok)
	f.Add("capplunder-health is healthy\ncapplunder-health  https:// is healthy" + ok + " external=yes")
	f.Fuzz(func(t *testing.T, text string) {
		v, done, err := translate.ReadLook(leaveLog("leave.look", text, ""), "j")
		if !done || err != nil && (len(v.Nodes) > 0 || len(v.Members) > 0 || v.MembersKnown || v.External) {
			t.Fatalf("done %v, %v, %+v", done, err, v)
		}
		if v.MembersKnown == (len(v.Members) == 0) && v.MembersKnown || v.MembersKnown && v.External {
			t.Errorf("%+v", v)
		}
		for _, m := range v.Members {
			if m.ID == "" || !strings.Contains(text, m.ID) || m.Healthy && !strings.Contains(text, m.Address+":") {
				t.Errorf("%+v", m)
			}
			if err := translate.Quorum(translate.ClusterView{Members: v.Members}, m.Address); err == nil {
				t.Error("unknown members may go")
			}
		}
		for _, n := range v.Nodes {
			if n.Name == "" || strings.ContainsAny(n.Name, " /|") {
				t.Errorf("%+v", n)
			}
		}
	})
}

// FuzzReadLeave: only the words of the scripts are success, and errors show no secret.
func FuzzReadLeave(f *testing.F) {
	for _, s := range []string{
		"capplunder-drain ok", "capplunder-drain failed\ncapplunder-left a b <none> <none> <none>", "capplunder-reset ok", "capplunder-node gone", "capplunder-removed none", "capplunder-removed id=8e9e",
		"capplunder-error x", " capplunder-drain gone ", "error\ncapplunder-budget a b 0\ncapplunder-drain failed", "",
	} {
		f.Add(s, "")
		f.Add(s, "Process exited with status 1")
	}
	f.Fuzz(func(t *testing.T, text, problem string) {
		const secret = "abcdef.0123456789abcdef"
		text += "\nerror: token " + secret
		for _, r := range []struct {
			task string
			ok   []string
			read func(wire.Log) error
		}{
			{"leave.drain", []string{"capplunder-drain ok", "capplunder-drain gone"}, func(l wire.Log) error { return translate.ReadDrain(l, "j") }},
			{"leave.reset", []string{"capplunder-reset ok", "capplunder-reset none"}, func(l wire.Log) error { return translate.ReadReset(l, "j") }},
			{"leave.node", []string{"capplunder-node gone"}, func(l wire.Log) error { return translate.ReadDeleteNode(l, "j") }},
			{"leave.member", []string{"capplunder-removed "}, func(l wire.Log) error { _, err := translate.ReadRemoveMember(l, "j"); return err }},
		} {
			err := r.read(leaveLog(r.task, text, problem))
			if err != nil {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%s shows a secret: %v", r.task, err)
				}
				continue
			}
			found := false
			for _, w := range r.ok {
				found = found || strings.Contains(strings.Join(strings.Fields(text), " "), strings.TrimSpace(w))
			}
			if !found {
				t.Errorf("%s: success after %q", r.task, text)
			}
		}
	})
}
