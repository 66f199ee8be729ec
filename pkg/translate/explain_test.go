package translate_test

import (
	"strings"
	"testing"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
	"github.com/plunder-app/capplunder/pkg/translate"
)

// TestMask: what is secret is gone, and what a person needs is still there.
func TestMask(t *testing.T) {
	const plant = "PlAnTeD"
	key := "-----BEGIN RSA PRIVATE KEY-----\nMIIE" + plant + "\nabc\n-----END RSA PRIVATE KEY-----"
	for _, tt := range []struct{ in, want string }{
		{"kubeadm join 10.0.0.9:6443 --token abcdef.0123456789abcdef", "kubeadm join 10.0.0.9:6443 --token ***"},
		{"--certificate-key " + strings.Repeat("0a", 32) + " x", "--certificate-key *** x"},
		{"certificateKey: " + plant, "certificateKey: ***"},
		{"Could not resolve host http://deploy:" + plant + "@proxy.example:3128/", "Could not resolve host http://***@proxy.example:3128/"},
		{"https://" + plant + "@mirror.example/x", "https://***@mirror.example/x"},
		{"a " + key + " b", "a *** b"},
		{key[:40] + plant, "***"},
		{"    client-key-data: " + plant + "==", "    client-key-data: ***"},
		{`"client-key-data": "` + plant + `"`, `"client-key-data": ***`},
		{"data: LS0tLS1CRUdJTiBSU0EgUFJJVkFURSBLRVktLS0tLQ" + plant + "==", "data: ***"},
		{"capplunder-ca LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSQ==", "capplunder-ca LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSQ=="},
		{"token-secret: " + plant, "token-secret: ***"},
		{"PASSWORD=" + plant + " ok", "PASSWORD=*** ok"},
		{"Authorization: Bearer " + plant + "12345", "Authorization: Bearer ***"},
		{"got eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOi" + plant + ".sig-" + plant, "got ***"},
		{"E: Unable to locate package kubelet", "E: Unable to locate package kubelet"},
		{"Get:1 https://pkgs.k8s.io/core:/stable:/v1.34/deb InRelease", "Get:1 https://pkgs.k8s.io/core:/stable:/v1.34/deb InRelease"},
		{"mail root@localhost", "mail root@localhost"},
	} {
		if got := translate.Mask(tt.in); got != tt.want || strings.Contains(got, plant) {
			t.Errorf("Mask(%q)\n got %q\nwant %q", tt.in, got, tt.want)
		}
	}
}

// TestLikely: texts as the programs print them.
func TestLikely(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"Err:1 http://archive.ubuntu.com/ubuntu noble InRelease\n  Temporary failure resolving 'archive.ubuntu.com'", "cannot resolve names"},
		{"curl: (6) Could not resolve host: pkgs.k8s.io", "cannot resolve names"},
		{"curl: (5) Could not resolve proxy: proxy.example", "name of the proxy"},
		{"curl: (56) CONNECT tunnel failed, response 403", "the proxy refuses"},
		{"curl: (56) Received HTTP code 407 from proxy after CONNECT", "the proxy refuses"},
		{"curl: (7) Failed to connect to pkgs.k8s.io port 443: No route to host", "no way from the machine"},
		{"Error: Failed to download metadata for repo 'kubernetes': Cannot download repomd.xml: Cannot download repodata/repomd.xml: All mirrors were tried", "no way from the machine"},
		{"W: GPG error: https://mirror.example InRelease: The following signatures couldn't be verified because the public key is not available: NO_PUBKEY 234654DA9A296436", "another key"},
		{"W: GPG error: https://mirror.example InRelease: The following signatures were invalid: EXPKEYSIG 234654DA9A296436 isv:kubernetes", "has expired"},
		{"E: Release file for http://x/InRelease is not valid yet (invalid for another 3h 2min 1s). Updates for this repository will not be applied.", "clock"},
		{"E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 1234 (unattended-upgr)", "another package manager"},
		{"Existing lock /var/run/yum.pid: another copy is running as pid 999.", "another package manager"},
		{"Waiting for process with pid 999 to finish.", "another package manager"},
		{"E: Version '1.34.99-*' for 'kubelet' was not found", "does not have it"},
		{"No match for argument: kubelet-1.34.99\nError: Unable to find a match: kubelet-1.34.99", "does not have it"},
		{"E: Held packages were changed and -y was used without --allow-change-held-packages.", "is held"},
		{"cannot copy extracted data: failed to write (No space left on device)", "disk"},
		{"At least 120MB more space needed on the / filesystem.", "disk"},
		{"capplunder-error swap is still on", "swap"},
		{"modprobe: FATAL: Module br_netfilter not found in directory /lib/modules/6.1.0-39-amd64", "no such module"},
		{"[ERROR ImagePull]: failed to pull image registry.k8s.io/kube-apiserver:v1.34.1", "images could not be pulled"},
		{"error execution phase preflight: couldn't validate the identity of the API Server: could not find a JWS signature in the cluster-info ConfigMap for token ID \"abcdef\"", "join token has expired"},
		{"x509: certificate has expired or is not yet valid: current time 2019-01-01T00:00:00Z is before 2026", "clock"},
		{"[ERROR SystemVerification]: missing required cgroups: memory", "cgroups"},
		{"sudo: sorry, you must have a tty to run sudo", "requiretty"},
		{"dial tcp 10.0.0.9:6443: connect: connection refused", "nothing listens there"},
		{"dial tcp 10.0.0.9:6443: i/o timeout", "nothing answers"},
		{"error downloading the secret: Secret \"kubeadm-certs\" was not found in the \"kube-system\" Namespace", "uploaded for this join have expired"},
		{"rpc error: code = Unimplemented desc = unknown service runtime.v1.RuntimeService", "CRI plugin"},
		{"etcdserver: unhealthy cluster", "etcd has too few"},
		{"capplunder-error there are no CNI plugins in /opt/cni/bin: set binaries.cniPluginsURL", "set spec.binaries.cniPluginsURL of PlunderMachine or PlunderCluster"},
		{"unable to fetch the kubeadm-config ConfigMap: this version of kubeadm only supports deploying clusters with the control plane version >= 1.35.0. Current version: v1.34.0", "never newer"},
		{"something nobody knows", ""},
	} {
		got := translate.Likely(tt.text)
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, tt := range []struct {
		e    wire.LogEntry
		want string
	}{
		{wire.LogEntry{Task: "kube.packages#abc", Error: "Process exited with status 100", Entry: "Reading...\rReading package lists...\n\n\x1b[31mE: Unable to locate package kubelet\x1b[0m\n"},
			"action kube.packages failed: Process exited with status 100 (likely: the package repository does not have it: check version and mirror); its output ends: Reading package lists... | [31mE: Unable to locate package kubelet[0m"},
		{wire.LogEntry{Task: "join#abc", Error: "Process exited with status 1", Entry: "1\n2\n3\n4\n5\n6 token=abc\n"},
			"action join failed: Process exited with status 1; its output ends: 2 | 3 | 4 | 5 | 6 token=***; the whole log is /var/log/capplunder/join.log on the machine"},
		{wire.LogEntry{Task: "init#abc", Error: "Command Timed out", Entry: wire.NoOutput},
			"action init failed: Command Timed out (likely: the action ran into its time limit); the whole log is /var/log/capplunder/init.log on the machine"},
		{wire.LogEntry{Task: "hook.before#abc", Error: "Process exited with status 1", Entry: "capplunder-error the user's script hooks.before ended with status 7\n"},
			"action hook.before failed: Process exited with status 1 (likely: the script of the user failed; it runs again when the command is repeated); its output ends: capplunder-error the user's script hooks.before ended with status 7; the whole log is /var/log/capplunder/hook-before.log on the machine"},
		{wire.LogEntry{Task: "ci.run#abc", Error: "x"}, "action ci.run failed: x; the whole log is /var/log/capplunder/bootstrap.log on the machine"},
		{wire.LogEntry{Task: "work#abc"}, "action work did not say what it should"},
	} {
		if got := translate.Explain(tt.e); got != tt.want {
			t.Errorf("\n got %q\nwant %q", got, tt.want)
		}
	}
}
