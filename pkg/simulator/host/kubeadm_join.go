package host

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// joinRun is one run of kubeadm join.
type joinRun struct {
	*call

	cfg     joinConfiguration
	flags   map[string][]string
	key     string // certificate key
	version string // of kubeadm and kubelet
	minor   int
	name    string
	cluster *cluster
}

func (c *call) kubeadmJoin(flags map[string][]string, args []string) int {
	r := &joinRun{call: c, flags: flags}
	if err := r.prepare(args); err != nil {
		return c.kubeadmError(err)
	}
	// A worker's join takes half of the time of an installation; a control plane pulls
	// images, too, which is in its first phase.
	phases := []phase{{"preflight", shareJoin - 35, r.preflightPhase}, {"kubelet-start", 35, r.kubeletStart}}
	if r.cfg.ControlPlane != nil {
		phases = []phase{
			{"preflight", 3, r.preflightPhase},
			{"control-plane-prepare/download-certs", 2, r.downloadCerts},
			{"control-plane-prepare/certs", 2, r.certs},
			{"control-plane-prepare/kubeconfig", 1, func() error {
				d := r.clusterData()
				return r.controlPlaneKubeconfigs(d.Name, d.Endpoint, r.name, r.minor, false)
			}},
			{"control-plane-prepare/control-plane", 1, func() error { r.writeManifests(controlPlanePods()[:3]...); return nil }},
			{"check-etcd", 2, r.checkEtcd},
			{"kubelet-start", 6, r.kubeletStart},
			{"control-plane-join/etcd", 2, r.joinEtcd},
			{"control-plane-join/mark-control-plane", 2, r.markControlPlane},
			{"wait-control-plane", 3, r.waitControlPlane},
		}
	}
	for _, p := range phases {
		if slices.Contains(r.cfg.SkipPhases, p.name) {
			continue
		}
		err := c.phase("join", p.name, p.share)
		if err == nil {
			err = p.run()
		}
		if err != nil {
			return c.failed(p.name, err)
		}
	}
	if r.cfg.ControlPlane != nil {
		c.printf("\nThis node has joined the cluster and a new control plane instance was created:\n\n* Certificate signing request was sent to apiserver and approval was received.\n* A new etcd member was added to the local/stacked etcd cluster.\n")
		return 0
	}
	c.printf("\nThis node has joined the cluster:\n* Certificate signing request was sent to apiserver and a response was received.\n")
	return 0
}

// clusterData is a copy of the cluster's plain values.
func (r *joinRun) clusterData() clusterData {
	return look(r.cluster, func(d *clusterData) clusterData {
		return clusterData{Name: d.Name, Endpoint: d.Endpoint, Version: d.Version, CA: d.CA, Stable: d.Stable, Configured: d.Configured, Repository: d.Repository, CgroupV1: d.CgroupV1}
	})
}

func (r *joinRun) prepare(args []string) error {
	r.version, r.minor = r.kubeadmVersion()
	if f := value(r.flags, "--config"); f != "" {
		k, err := r.readKubeadmConfig(f)
		if err == nil && k.join == nil {
			err = errors.New("no JoinConfiguration kind was found in the YAML file")
		}
		if err != nil {
			return err
		}
		r.cfg = *k.join
	} else if len(args) > 0 {
		b := &r.cfg.Discovery.BootstrapToken
		b.APIServerEndpoint, b.Token = args[0], value(r.flags, "--token")
		b.CACertHashes = r.flags["--discovery-token-ca-cert-hash"]
		r.cfg.NodeRegistration.Name = value(r.flags, "--node-name")
		if has(r.flags, "--control-plane", "--experimental-control-plane") {
			r.cfg.ControlPlane = &joinControlPlane{}
		}
	}
	b := r.cfg.Discovery.BootstrapToken
	switch {
	case b.APIServerEndpoint == "":
		return errors.New("discovery: Invalid value: \"\": bootstrapToken or file must be set")
	case len(b.CACertHashes) == 0 && !b.Unsafe && !has(r.flags, "--discovery-token-unsafe-skip-ca-verification"):
		return errors.New("discovery.bootstrapToken: Invalid value: \"\": using token-based discovery without caCertHashes can be unsafe. Set unsafeSkipCAVerification as true in your kubeadm config file or pass --discovery-token-unsafe-skip-ca-verification flag to continue")
	}
	if _, _, err := tokenForm(b.Token); err != nil {
		return err
	}
	if cp := r.cfg.ControlPlane; cp != nil {
		if r.key = cp.CertificateKey; r.key == "" {
			r.key = value(r.flags, "--certificate-key")
		}
		if err := checkCertificateKey(r.key); err != nil {
			return err
		}
		if a := cp.LocalAPIEndpoint.AdvertiseAddress; a != "" && a != r.h.cfg.Address {
			return fmt.Errorf("couldn't use %q as \"apiserver-advertise-address\": it is not an address of this host", a)
		}
	}
	if r.name = r.cfg.NodeRegistration.Name; r.name == "" {
		r.name = r.h.name()
	}
	return nil
}

func (r *joinRun) preflightPhase() error {
	r.printf("[preflight] Running pre-flight checks\n")
	p := newProblems(r.flags, r.cfg.NodeRegistration)
	r.checks(p, r.cfg.NodeRegistration)
	if r.minor < 23 && len(r.h.list(manifestDir)) > 0 {
		p.add("DirAvailable-"+dashes(manifestDir), "%s is not empty", manifestDir)
	}
	available := []string{kubeletConf, bootstrapConf}
	if r.cfg.ControlPlane == nil {
		available = append(available, pkiCA)
	}
	for _, f := range available {
		if r.h.fs.exists(f) {
			p.add("FileAvailable-"+dashes(f), "%s already exists", f)
		}
	}
	if len(p.found) > 0 {
		return preflightProblems(p.found)
	}
	var err error
	if r.cluster, err = r.discover(); err != nil {
		return err
	}
	d := r.clusterData()
	r.printf("[preflight] Reading configuration from the cluster...\n")
	switch m := minorOf(d.Version); {
	case !d.Configured:
		return errors.New("unable to fetch the kubeadm-config ConfigMap: failed to get config map: configmaps \"kubeadm-config\" not found")
	case r.minor > m+1:
		return fmt.Errorf("unable to fetch the kubeadm-config ConfigMap: this version of kubeadm only supports deploying clusters with the control plane version >= 1.%d.0. Current version: v%s", r.minor-1, d.Version)
	case r.minor > m || r.minor < m-3:
		// kubeadm itself lets a newer kubelet pass, which no API server supports.
		p.add("KubeletVersion", "the kubelet version v%s does not fit the control plane version v%s", r.version, d.Version)
		return preflightProblems(p.found)
	}
	if r.cfg.ControlPlane == nil {
		return nil
	}
	if err := r.readyForControlPlane(d); err != nil {
		return err
	}
	r.printf("[preflight] Running pre-flight checks before initializing the new control plane instance\n")
	r.controlPlaneChecks(p)
	if len(p.found) == 0 {
		if err := r.pullImages(d.Repository); err != nil {
			if errors.Is(err, errEnded) {
				return err
			}
			p.add("ImagePull", "%v", err)
		}
	}
	if len(p.found) > 0 {
		return preflightProblems(p.found)
	}
	return nil
}

// readyForControlPlane checks what another control plane needs of the cluster.
func (r *joinRun) readyForControlPlane(d clusterData) error {
	var missing []string
	switch {
	case !d.Stable:
		missing = []string{"unable to add a new control plane instance to a cluster that doesn't have a stable controlPlaneEndpoint address"}
	case r.key == "":
		for _, f := range sharedCerts() {
			if !r.h.fs.exists(pkiDir + f) {
				missing = append(missing, fmt.Sprintf("failure loading certificate for %s: couldn't load the certificate file %s: open %[2]s: no such file or directory", strings.TrimSuffix(strings.TrimSuffix(f, ".crt"), ".key"), pkiDir+f))
			}
		}
	}
	if missing == nil {
		return nil
	}
	text := strings.Join(missing, ", ")
	if len(missing) > 1 {
		text = "[" + text + "]"
	}
	return errors.New("\nOne or more conditions for hosting a new control plane instance is not satisfied.\n\n" + text +
		"\n\nPlease ensure that:\n* The cluster has a stable controlPlaneEndpoint address.\n* The certificates that must be shared among control plane instances are provided.\n")
}

// discover finds the cluster that a join is for, and tries as long as kubeadm does.
func (r *joinRun) discover() (*cluster, error) {
	b := r.cfg.Discovery.BootstrapToken
	id, secret, err := tokenForm(b.Token)
	if err != nil {
		return nil, err
	}
	server, port, ok := splitEndpoint(b.APIServerEndpoint)
	if !ok {
		return nil, fmt.Errorf("apiServerEndpoint: missing port in address %q", b.APIServerEndpoint)
	}
	const identity = "couldn't validate the identity of the API Server: "
	var found *cluster
	var final error // that no patience helps against
	err = r.eventually(discoveryTimeout, func() error {
		cl, err := r.request(server, port)
		if err != nil {
			cause := "connect: connection refused"
			switch {
			case errors.Is(err, errTimedOut):
				cause = "i/o timeout"
			case !errors.Is(err, errRefused):
				cause = err.Error()
			}
			return fmt.Errorf(identity+"failed to request the cluster-info ConfigMap: Get \"https://%s/api/v1/namespaces/kube-public/configmaps/cluster-info?timeout=10s\": dial tcp %s: %s", b.APIServerEndpoint, b.APIServerEndpoint, cause)
		}
		ca := look(cl, func(d *clusterData) []byte { return d.CA })
		known, right := cl.token(id, secret)
		switch {
		case !known:
			return fmt.Errorf(identity+"could not find a JWS signature in the cluster-info ConfigMap for token ID %q", id)
		case !right:
			final = errors.New(identity + "failed to verify JWS signature of received cluster info object, can't trust this API Server")
		case len(b.CACertHashes) > 0 && !slices.Contains(b.CACertHashes, caHash(ca)):
			final = errors.New(identity + "cluster CA found in cluster-info ConfigMap is invalid: none of the public keys " + strconv.Quote(caHash(ca)) + " are pinned")
		default:
			found = cl
		}
		return nil
	})
	if final != nil {
		err = final
	}
	return found, err
}

// again is an error for a cluster that has stopped to answer.
func (r *joinRun) again() error {
	server, port, _ := splitEndpoint(r.cfg.Discovery.BootstrapToken.APIServerEndpoint)
	cl, err := r.request(server, port)
	if err == nil && cl != r.cluster {
		err = errors.New("another cluster answers")
	}
	return err
}

func (r *joinRun) downloadCerts() error {
	if r.key == "" {
		r.printf("[download-certs] Skipping certs download\n")
		return nil
	}
	r.printf("[download-certs] Downloading the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace\n")
	if err := r.again(); err != nil {
		return fmt.Errorf("error downloading certs: error downloading the secret: %w", err)
	}
	certs := r.cluster.certs()
	if certs == nil {
		return errors.New("error downloading certs: error downloading the secret: Secret \"kubeadm-certs\" was not found in the \"kube-system\" Namespace. This Secret might have expired. Please, run `kubeadm init phase upload-certs --upload-certs` on a control plane to generate a new one")
	}
	if certs.Key != sha256.Sum256([]byte(r.key)) {
		return errors.New("error downloading certs: error decoding secret data with provided key: cipher: message authentication failed")
	}
	r.putSharedFiles(certs.Files)
	return nil
}

func (r *joinRun) certs() error {
	d := r.clusterData()
	host, _, _ := strings.Cut(d.Endpoint, ":")
	if err := r.makeCerts([]string{r.name, "kubernetes", "kubernetes.default", r.h.cfg.Address, host}); err != nil {
		return err
	}
	if ca, err := r.read(pkiCA); err != nil || !sameCA(ca, d.CA) {
		// What the first client with a certificate of this CA says.
		return errors.New("error creating client: Get \"https://" + d.Endpoint + "/api/v1/nodes\": tls: failed to verify certificate: x509: certificate signed by unknown authority")
	}
	return nil
}

func (r *joinRun) checkEtcd() error {
	r.printf("[check-etcd] Checking that the etcd cluster is healthy\n")
	if err := r.again(); err != nil {
		return fmt.Errorf("could not retrieve the list of etcd endpoints: %w", err)
	}
	if a := r.cluster.unhealthy(); a != "" {
		return fmt.Errorf("etcd cluster is not healthy: failed to dial endpoint https://%s:2379 with maintenance client: context deadline exceeded", a)
	}
	return nil
}

func (r *joinRun) kubeletStart() error {
	d := r.clusterData()
	if err := r.again(); err != nil {
		return fmt.Errorf("cannot get Node %q: %w", r.name, err)
	}
	r.h.fs.put(bootstrapConf, &node{mode: 0o600, data: []byte("apiVersion: v1\nkind: Config\n")})
	if !r.h.fs.exists(pkiCA) {
		r.h.addFile(pkiCA, string(d.CA))
	}
	if n, ok := r.cluster.node(r.name); ok {
		if ready, _ := r.cluster.condition(n, r.h.world); ready == "True" {
			return fmt.Errorf("a Node with name %q and status \"Ready\" already exists in the cluster. You must delete the existing Node or change the name of this new joining Node", r.name)
		}
	}
	if err := r.startKubelet(d.CgroupV1); err != nil {
		return err
	}
	// The kubelet gets its certificate, and with it its Node.
	if err := r.putKubeconfig(kubeletConf, d.Name, d.Endpoint, "system:node:"+r.name, d.CA, nil, nil); err != nil {
		return err
	}
	_ = r.h.fs.remove(who{}, bootstrapConf, false)
	r.registerNode(r.cluster, r.name, r.cfg.NodeRegistration)
	r.printf("[kubelet-start] Starting the kubelet\n[kubelet-start] Waiting for the kubelet to perform the TLS Bootstrap\n")
	return nil
}

// joinEtcd makes the host a member of the cluster's etcd: first it is made known to the
// others, then it starts, and then, from 1.29 on, it gets its vote. Before that version
// it has a vote from the beginning, so that a cluster of one that gets its second member
// stands still until that has started.
func (r *joinRun) joinEtcd() error {
	if err := r.again(); err != nil {
		return fmt.Errorf("error creating local etcd static pod manifest file: %w", err)
	}
	learner := r.minor >= 29
	id, err := r.cluster.addMember(r.h.cfg.Address, learner)
	if err != nil {
		return fmt.Errorf("error creating local etcd static pod manifest file: %w", err)
	}
	r.printf("[etcd] Announced new etcd member joining to the existing etcd cluster\n")
	if !r.pay(3) {
		return errEnded
	}
	r.writeManifests("etcd")
	r.startEtcd(r.cluster, id, r.name)
	r.printf("[etcd] Creating static Pod manifest for \"etcd\"\n[etcd] Waiting for the new etcd member to join the cluster. This can take up to 40s\n")
	if !r.pay(3) {
		return errEnded
	}
	if !r.cluster.quorum() {
		return errors.New("error creating local etcd static pod manifest file: timeout waiting for etcd cluster to be available")
	}
	if learner {
		r.cluster.promote(id)
	}
	return nil
}

func (r *joinRun) markControlPlane() error {
	if err := r.again(); err != nil {
		return fmt.Errorf("error applying control-plane label and taints: %w", err)
	}
	r.cluster.changeNode(r.name, func(n *clusterNode) { n.ControlPlane = true })
	r.printf("[mark-control-plane] Marking the node %s as control-plane\n", r.name)
	return nil
}

func (r *joinRun) waitControlPlane() error {
	return r.eventually(controlPlaneTimeout, func() error {
		if r.h.apiServer() == nil {
			return errors.New("failed while waiting for the control plane to start")
		}
		return nil
	})
}
