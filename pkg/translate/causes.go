package translate

import "strings"

// cause is what usually lies behind a text in the output of a failed action.
type cause struct{ text, cause string }

// causes are in groups, each from the special to the general; the first match wins. The
// texts are those that the programs print.
func causes() []cause {
	const (
		names   = "the machine cannot resolve names: check nameserver and gateway of the deployment"
		network = "there is no way from the machine to the mirror or the Internet: check gateway, firewall, mirror and proxy"
		keyOld  = "the signing key of the package repository has expired: with a mirror of your own, renew repo.key"
		clock   = "the clock of the machine is wrong, or those of the machines differ: set it, and see that NTP runs"
		managed = "another package manager is at work on the machine (an automatic update?): it is tried again by running the same command"
		gone    = "the package repository does not have it: check version and mirror"
		images  = "container images could not be pulled: check the way to the registry, imageRepository and proxy"
		expired = "the join token has expired, or the control plane is another one"
		disk    = "a disk of the machine is full"
		proxy   = "the proxy refuses: check its user and password, and what it lets through"
	)
	return []cause{
		// Reaching the machine.
		{"capplunder-stranger", "another machine, or another boot of it, answers at this address; nothing was changed on it"},
		{"ssh: handshake failed", "the SSH user or key of plunder's global configuration is missing or does not fit, the account is locked, or the host's sshd refuses ssh-rsa signatures (PubkeyAcceptedAlgorithms +ssh-rsa)"},
		{"no SSH credentials", "the plunder server has no deployment for this address"},
		{"a password is required", "the SSH user may not use sudo without a password"},
		{"is not in the sudoers file", "the SSH user may not use sudo"},
		{"you must have a tty", "sudo wants a terminal: remove requiretty from its configuration"},
		{"another job is still running on this host", "an earlier run that was interrupted is still at work there; the same command can be run again in some minutes"},

		// The machine itself.
		{"No space left on device", disk},
		{"enough free space in", disk},
		{"more space needed on the", disk},
		{"swap is still on", "swap could not be switched off: look for a service that switches it on"},
		{"running with swap on is not supported", "swap was switched on again: look for a service that does"},
		{"FATAL: Module", "the running kernel has no such module: reboot the machine into its newest kernel, or install the package with the rest of the modules"},
		{"configured to not run on a host using cgroup v1", "the machine has cgroup v1: start it with systemd.unified_cgroup_hierarchy=1, or set allowCgroupV1: true"},
		{"missing required cgroups", "the kernel lacks cgroups that kubelet needs (cgroup_enable=memory on its command line?)"},
		{"the user's script hooks.", "the script of the user failed; it runs again when the command is repeated"},

		// The way to the mirror. The proxy and the clock come first: they show as other faults.
		{"Could not resolve proxy", "the name of the proxy cannot be resolved: check proxy.http and proxy.https"},
		{"Proxy Authentication Required", proxy},
		{"CONNECT tunnel failed", proxy},
		{"from proxy after CONNECT", proxy},
		{"407  Proxy", proxy},
		{"is not valid yet (invalid for another", clock},
		{"certificate is not yet valid", clock},
		{"certificate has expired or is not yet valid", clock},
		{"Could not resolve", names},
		{"Temporary failure resolving", names},
		{"Temporary failure in name resolution", names},
		{"Name or service not known", names},
		{"no such host", names},
		{"EXPKEYSIG", keyOld},
		{"KEYEXPIRED", keyOld},
		{"NO_PUBKEY", "the package repository is signed with another key than the one that is known: check repo.key"},
		{"GPG check FAILED", "a package is signed with another key than the repository's: check repo.key"},
		{"Public key for", "a package is signed with another key than the repository's: check repo.key"},
		{"is not signed", "the package repository is not signed, or with another key: check repo.key"},
		{"no repository key", "the repository's signing key could not be fetched: check the way to the mirror, repo.base and repo.key"},
		{"SSL certificate problem", "the mirror's certificate is not trusted by the machine, or a proxy exchanges it"},
		{"Network is unreachable", network},
		{"No route to host", network},
		{"Could not connect to", network},
		{"Failed to connect to", network},
		{"Connection timed out", network},
		{"Cannot download repomd.xml", network},
		{"Failed to download metadata", network},
		{"Cannot find a valid baseurl", network},

		// Package managers.
		{"Could not get lock", managed},
		{"Unable to acquire the dpkg", managed},
		{"Existing lock /var/run/yum.pid", managed},
		{"Waiting for process with pid", managed},
		{"Failed to obtain the transaction lock", managed},
		{"dpkg was interrupted", "an earlier installation of packages was interrupted: dpkg --configure -a on the machine shows why it does not end"},
		{"Held packages were changed", "a package is held on the machine: apt-mark unhold it"},
		{"held broken packages", "packages on the machine are in the way of the new ones"},
		{"unmet dependencies", "packages on the machine are in the way of the new ones"},
		{"does not have a Release file", "the package repository is not there: check the mirror, and whether it serves this release of the distribution"},
		{"Unable to locate package", gone},
		{"is not served; there is:", "the package repository does not have this version: check version and mirror"},
		{"Unable to find a match", gone},
		{"No match for argument", gone},
		{"No package kubelet", gone},
		{"' was not found", gone},
		{"The requested URL returned error: 404", gone},
		{"another SHA-256 digest", "the file is not the one that was meant, or the digest in the options belongs to another version"},
		{"no CNI plugins in /opt/cni/bin", "the image does not have them: set spec.binaries.cniPluginsURL of PlunderMachine or PlunderCluster"},
		{"is not on the image", "the image is not what skipInstall says"},
		{"command not found", "a program that the installation needs is not on the machine"},

		// Container runtime and images.
		{"capplunder-error containerd", "containerd is too old for this version: set containerdVersion, or take Docker's packages instead of the distribution's"},
		{"unknown service runtime.v1.RuntimeService", "containerd runs without its CRI plugin"},
		{"container runtime is not running", "the container runtime does not answer: journalctl -u containerd on the machine shows why"},
		{"[ERROR CRI]", "the container runtime does not answer: journalctl -u containerd on the machine shows why"},
		{"[ERROR FileExisting-crictl]", "crictl is missing, which kubeadm of this version needs: it belongs on the image when binaries are installed"},
		{"toomanyrequests", "the registry limits how much is pulled: set imageRepository to a mirror"},
		{"ImagePull", images},
		{"failed to pull image", images},
		{"failed to pull and unpack image", images},

		// kubeadm.
		{"initialised before but the API does not answer", "the control plane on the machine is down; it is not touched, because it may hold the cluster's data: journalctl -u kubelet there shows why"},
		{"[ERROR NumCPU]", "a control plane needs two CPUs"},
		{"[ERROR Mem]", "the machine has too little memory for a control plane"},
		{"[ERROR DirAvailable", "there is something of an earlier cluster on the machine: delete the Machine, so that it is installed afresh"},
		{"[ERROR FileAvailable", "there is something of an earlier cluster on the machine: delete the Machine, so that it is installed afresh"},
		{"[ERROR Port", "another program has a port of Kubernetes: look for an earlier cluster on the machine"},
		{"kubeadm-certs\" was not found", "the control plane's keys that were uploaded for this join have expired (two hours); they are uploaded anew"},
		{"error downloading the secret", "the control plane's keys that were uploaded for this join have expired (two hours); they are uploaded anew"},
		{"Peer URLs already exists", "a member of etcd with this address is left from an earlier join: remove it with etcdctl member remove on a control plane"},
		{"etcd cluster is not healthy", "a member of etcd does not answer: bring that control plane machine up, or, if it was deleted, remove its member on another one (etcdctl member list, etcdctl member remove)"},
		{"unhealthy cluster", "etcd has too few healthy members to take another one: bring the other control planes up first"},
		{"couldn't validate the identity of the API Server", expired},
		{"could not find a JWS signature", expired},
		{"only supports deploying clusters with the control plane version", "the version of the Machine is newer than the control plane's, or much older: a worker may be some minor versions older, never newer"},
		{"token id", "the join token is not known to the control plane"},
		{"none of the public keys", "the cluster at the endpoint is another one: its CA is not the recorded one"},
		{"certificate signed by unknown authority", "the cluster at the endpoint is another one: its CA is not the recorded one"},
		{"failed to request the cluster-info", "the control plane endpoint cannot be reached from the machine: check load balancer, routes and firewall"},

		// The rest.
		{"Command Timed out", "the action ran into its time limit"},
		{"i/o timeout", "nothing answers at that address: check routes, firewall and, for the control plane endpoint, the load balancer"},
		{"connection refused", "nothing listens there: for the control plane endpoint, check the load balancer and the API server behind it"},
		{"timed out waiting for the condition", "the control plane did not come up in time: journalctl -u kubelet and crictl ps -a on the machine show why"},
		{"context deadline exceeded", "something did not come up in time: journalctl -u kubelet and crictl ps -a on the machine show why"},
	}
}

// Likely is " (likely: ...)" with the cause that usually lies behind a text, or "".
func Likely(text string) string {
	for _, c := range causes() {
		if strings.Contains(text, c.text) {
			return " (likely: " + c.cause + ")"
		}
	}
	return ""
}
