package host

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// initRun is one run of kubeadm init.
type initRun struct {
	*call

	cfg      kubeadmConfig
	flags    map[string][]string
	version  string // of the cluster
	minor    int    // of kubeadm
	endpoint string // HOST:PORT
	name     string // of the node
	tokens   map[string]bootstrapToken
	cluster  *cluster // once its etcd runs
}

func (c *call) kubeadmInit(flags map[string][]string) int {
	r := &initRun{call: c, flags: flags}
	if err := r.prepare(); err != nil {
		return c.kubeadmError(err)
	}
	c.printf("[init] Using Kubernetes version: v%s\n", r.version)
	const started = 5 // the phase that starts etcd and the API server
	for i, p := range []phase{
		{"preflight", 0, r.preflightPhase},
		{"certs", 3, r.certs},
		{"kubeconfig", 1, r.kubeconfigs},
		{"etcd", 1, func() error { r.writeManifests("etcd"); return nil }},
		{"control-plane", 1, func() error { r.writeManifests(controlPlanePods()[:3]...); return nil }},
		{"kubelet-start", 4, r.kubeletStart},
		{"wait-control-plane", 10, r.waitControlPlane},
		{"upload-config", 2, r.uploadConfig},
		{"upload-certs", 1, r.uploadCerts},
		{"mark-control-plane", 1, r.markControlPlane},
		{"bootstrap-token", 2, r.bootstrapTokens},
		{"kubelet-finalize", 1, func() error { return nil }},
		{"addon", 3, func() error {
			r.cluster.change((*clusterData).addons)
			r.printf("[addons] Applied essential addon: CoreDNS\n[addons] Applied essential addon: kube-proxy\n")
			return nil
		}},
	} {
		if slices.Contains(r.skipped(), p.name) {
			continue
		}
		err := c.phase("init", p.name, p.share)
		if err == nil && r.cluster == nil && i > started {
			err = r.ready()
		}
		if err == nil {
			err = p.run()
		}
		if err != nil {
			return c.failed(p.name, err)
		}
	}
	c.printf("\nYour Kubernetes control-plane has initialized successfully!\n")
	if !has(flags, "--skip-token-print") {
		for _, id := range sortedKeys(r.tokens) {
			c.printf("kubeadm join %s --token %s.%s --discovery-token-ca-cert-hash %s\n", r.endpoint, id, r.tokens[id].Secret, caHash(r.cluster.CA))
		}
	}
	return 0
}

// ready finds the cluster when the phase that makes it is left out.
func (r *initRun) ready() error {
	cl, problem := r.connectAs(adminConf)
	if problem != "" {
		if cl, problem = r.connectAs(superAdminConf); problem != "" {
			return errors.New(problem)
		}
	}
	r.cluster = cl
	return nil
}

func (r *initRun) skipped() []string {
	out := slices.Clone(r.cfg.init.SkipPhases)
	for _, v := range r.flags["--skip-phases"] {
		out = append(out, strings.Split(v, ",")...)
	}
	return out
}

// prepare reads and checks the configuration.
func (r *initRun) prepare() error {
	if !has(r.flags, "--config") {
		return errors.New("the simulator only knows kubeadm init with --config")
	}
	var err error
	if r.cfg, err = r.readKubeadmConfig(value(r.flags, "--config")); err != nil {
		return err
	}
	if r.cfg.init == nil || r.cfg.cluster == nil {
		return errors.New("no InitConfiguration or ClusterConfiguration kind was found in the YAML file")
	}
	_, r.minor = r.kubeadmVersion()
	if r.version, err = clusterVersion(r.cfg.cluster, r.minor); err != nil {
		return err
	}
	r.tokens = map[string]bootstrapToken{}
	for _, t := range r.cfg.init.BootstrapTokens {
		id, secret, err := tokenForm(t.Token)
		if err != nil {
			return err
		}
		life := 24 * time.Hour
		if t.TTL != "" {
			if life, err = time.ParseDuration(t.TTL); err != nil {
				return fmt.Errorf("error unmarshaling configuration: %w", err)
			}
		}
		r.tokens[id] = bootstrapToken{Secret: secret, Expires: time.Now().Add(life), Description: t.Description}
	}
	if len(r.tokens) == 0 {
		id, secret, err := tokenForm(newToken())
		if err != nil {
			return err
		}
		r.tokens[id] = bootstrapToken{Secret: secret, Expires: time.Now().Add(24 * time.Hour)}
	}
	if err := checkCertificateKey(r.cfg.init.CertificateKey); err != nil {
		return err
	}
	if a := r.cfg.init.LocalAPIEndpoint.AdvertiseAddress; a != "" && a != r.h.cfg.Address {
		return fmt.Errorf("couldn't use %q as \"apiserver-advertise-address\": it is not an address of this host", a)
	}
	r.endpoint = r.cfg.cluster.ControlPlaneEndpoint
	if r.endpoint == "" {
		r.endpoint = fmt.Sprintf("%s:%d", r.h.cfg.Address, apiPort)
	}
	if !strings.Contains(r.endpoint, ":") {
		r.endpoint = fmt.Sprintf("%s:%d", r.endpoint, apiPort)
	}
	if r.name = r.cfg.init.NodeRegistration.Name; r.name == "" {
		r.name = r.h.name()
	}
	return nil
}

// clusterVersion is X.Y.Z of the cluster that is asked for.
func clusterVersion(cfg *clusterConfiguration, minor int) (string, error) {
	v := strings.TrimPrefix(cfg.KubernetesVersion, "v")
	if v == "" {
		return "", errors.New("could not fetch a Kubernetes version from the internet: unable to get URL \"https://dl.k8s.io/release/stable-1.txt\"")
	}
	if m := minorOf(v); m > minor || m < minor-1 {
		return "", fmt.Errorf("this version of kubeadm only supports deploying clusters with the control plane version >= 1.%d.0. Current version: v%s", minor-1, v)
	}
	return v, nil
}

// checkCertificateKey accepts none, and 32 bytes in hex.
func checkCertificateKey(key string) error {
	if b, err := hex.DecodeString(key); key != "" && (err != nil || len(b) != 32) {
		return errors.New("[certificateKey: Invalid value: \"\": the certificate key is invalid: it must be 32 bytes in hex]")
	}
	return nil
}

func (r *initRun) preflightPhase() error {
	r.printf("[preflight] Running pre-flight checks\n")
	p := newProblems(r.flags, r.cfg.init.NodeRegistration)
	r.checks(p, r.cfg.init.NodeRegistration)
	r.controlPlaneChecks(p)
	if len(p.found) == 0 {
		if err := r.pullImages(r.cfg.cluster.ImageRepository); err != nil {
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

func (r *initRun) certs() error {
	r.printf("[certs] Using certificateDir folder \"/etc/kubernetes/pki\"\n")
	host, _, _ := strings.Cut(r.endpoint, ":")
	return r.makeCerts(slices.Concat([]string{r.name, "kubernetes", "kubernetes.default", r.h.cfg.Address, host}, r.cfg.cluster.APIServer.CertSANs))
}

func (r *initRun) kubeconfigs() error {
	return r.controlPlaneKubeconfigs(r.cfg.cluster.ClusterName, r.endpoint, r.name, r.minor, true)
}

// controlPlaneKubeconfigs writes the kubeconfig files of a control plane. Those that are
// there already must be of the same CA and server.
func (c *call) controlPlaneKubeconfigs(clusterName, endpoint, name string, minor int, first bool) error {
	if clusterName == "" {
		clusterName = "kubernetes"
	}
	ca, err := c.read(pkiCA)
	if err != nil {
		return err
	}
	type conf struct {
		file, user, group string
	}
	confs := []conf{
		{adminConf, "kubernetes-admin", groupMasters},
		{"/etc/kubernetes/controller-manager.conf", "system:kube-controller-manager", ""},
		{"/etc/kubernetes/scheduler.conf", "system:kube-scheduler", ""},
	}
	if minor >= 29 {
		confs[0].group = groupAdmins
	}
	if first {
		if minor >= 29 {
			confs = append(confs, conf{superAdminConf, "kubernetes-super-admin", groupMasters})
		}
		confs = append(confs, conf{kubeletConf, "system:node:" + name, "system:nodes"})
	}
	for _, k := range confs {
		base := strings.TrimPrefix(k.file, "/etc/kubernetes/")
		if b, err := c.read(k.file); err == nil {
			old, err := parseKubeconfig(b)
			switch {
			case err != nil:
				return fmt.Errorf("error reading the kubeconfig file %q", base)
			case !sameCA(old.ca, ca):
				return fmt.Errorf("a kubeconfig file %q exists already but has got the wrong CA cert", base)
			case old.server != endpoint:
				return fmt.Errorf("a kubeconfig file %q exists already but has an unexpected API Server URL: expected: https://%s, got: https://%s", base, endpoint, old.server)
			}
			c.printf("[kubeconfig] Using existing kubeconfig file: %q\n", k.file)
			continue
		}
		var groups []string
		if k.group != "" {
			groups = []string{k.group}
		}
		if err := c.writeKubeconfig(k.file, clusterName, endpoint, k.user, groups...); err != nil {
			return err
		}
		c.printf("[kubeconfig] Writing %q kubeconfig file\n", base)
	}
	return nil
}

// kubeletStart starts the kubelet, which starts etcd and the API server: from here on
// there is a cluster.
func (r *initRun) kubeletStart() error {
	r.printf("[kubelet-start] Starting the kubelet\n")
	if err := r.startKubelet(r.cfg.cgroupV1); err != nil {
		return err
	}
	ca, err := r.read(pkiCA)
	if err != nil {
		return err
	}
	d := clusterData{
		ID: fmt.Sprintf("%x", r.h.randomBytes(8)), Seed: r.h.cfg.Seed, Name: r.cfg.cluster.ClusterName, Endpoint: r.endpoint, Version: r.version, CA: ca,
		Tokens: map[string]bootstrapToken{}, Objects: map[string]bool{}, CgroupV1: r.cfg.cgroupV1, Stable: r.cfg.cluster.ControlPlaneEndpoint != "",
		Repository: r.cfg.cluster.ImageRepository,
	}
	d.Members = []member{{ID: d.repeatable("member " + r.h.cfg.Address), Address: r.h.cfg.Address}}
	r.cluster = r.h.world.adopt(d)
	r.startEtcd(r.cluster, d.Members[0].ID, r.name)
	r.registerNode(r.cluster, r.name, r.cfg.init.NodeRegistration)
	return nil
}

// registerNode has the kubelet make the host's Node.
func (c *call) registerNode(cl *cluster, name string, reg nodeRegistration) {
	c.h.mu.Lock()
	c.h.sys.node = name
	c.h.mu.Unlock()
	cl.register(c.h.newNode(name, c.h.version("kubelet"), reg.extraArg("provider-id"), cl))
}

// waitControlPlane waits for the API server: up to 1.35 under the endpoint, then at the
// host's own address.
func (r *initRun) waitControlPlane() error {
	r.printf("[wait-control-plane] Waiting for the kubelet to boot up the control plane as static Pods from directory %q\n", manifestDir)
	if err := r.eventually(controlPlaneTimeout, r.reach); err != nil {
		if errors.Is(err, errEnded) {
			return err
		}
		r.printf("\nUnfortunately, an error has occurred:\n\tcontext deadline exceeded\n\nThis error is likely caused by:\n\t- The kubelet is not running\n")
		return errors.New("could not initialize a Kubernetes cluster")
	}
	switch {
	case r.minor >= 33:
		r.printf("[control-plane-check] kube-apiserver is healthy after 3.5s\n")
	case r.minor >= 29:
		r.printf("[api-check] The API server is healthy after 3.5s\n")
	default:
		r.printf("[apiclient] All control plane components are healthy after 10.5 seconds\n")
	}
	return nil
}

func (r *initRun) reach() error {
	address, port, _ := splitEndpoint(r.endpoint)
	if r.minor >= 36 {
		address, port = r.h.cfg.Address, apiPort
	}
	_, err := r.request(address, port)
	return err
}

func (r *initRun) uploadConfig() error {
	if err := r.reach(); err != nil {
		return fmt.Errorf("error uploading the kubeadm ClusterConfiguration: %w", err)
	}
	r.cluster.change(func(d *clusterData) {
		d.Configured = true
		d.Admins = true // kubeadm gives its administrators their role with the first client it makes
	})
	r.printf("[upload-config] Storing the configuration used in ConfigMap \"kubeadm-config\" in the \"kube-system\" Namespace\n")
	return nil
}

func (r *initRun) uploadCerts() error {
	if !has(r.flags, "--upload-certs", "--experimental-upload-certs") {
		r.printf("[upload-certs] Skipping phase. Please see --upload-certs\n")
		return nil
	}
	key := r.cfg.init.CertificateKey
	if key == "" {
		key = value(r.flags, "--certificate-key")
	}
	return r.upload(r.cluster, key, has(r.flags, "--skip-certificate-key-print"))
}

// upload writes the Secret kubeadm-certs. Without a key it makes one, and prints it.
func (c *call) upload(cl *cluster, key string, quiet bool) error {
	c.printf("[upload-certs] Storing the certificates in Secret \"kubeadm-certs\" in the \"kube-system\" Namespace\n")
	if key == "" {
		key = hex.EncodeToString(c.h.randomBytes(32))
	}
	if !quiet {
		c.printf("[upload-certs] Using certificate key:\n%s\n", key)
	}
	files := c.sharedFiles()
	id, secret, err := tokenForm(newToken())
	if err != nil {
		return err
	}
	cl.change(func(d *clusterData) {
		d.expire()
		until := time.Now().Add(certsLife)
		d.Certs = &uploadedCerts{Key: sha256.Sum256([]byte(key)), Expires: until, Files: files}
		d.Tokens[id] = bootstrapToken{Secret: secret, Expires: until, Description: "Proxy for managing TTL for the kubeadm-certs secret"}
	})
	return nil
}

func (r *initRun) markControlPlane() error {
	r.cluster.changeNode(r.name, func(n *clusterNode) { n.ControlPlane = true })
	r.printf("[mark-control-plane] Marking the node %s as control-plane\n", r.name)
	return nil
}

func (r *initRun) bootstrapTokens() error {
	if err := r.reach(); err != nil {
		return fmt.Errorf("error updating or creating token: %w", err)
	}
	r.cluster.change(func(d *clusterData) {
		for _, id := range sortedKeys(r.tokens) {
			d.Tokens[id] = r.tokens[id]
		}
	})
	r.printf("[bootstrap-token] Creating the \"cluster-info\" ConfigMap in the \"kube-public\" namespace\n")
	return nil
}

// kubeadmInitPhase is `kubeadm init phase upload-certs`.
func (c *call) kubeadmInitPhase(flags map[string][]string, args []string) int {
	if len(args) != 2 || args[0] != "phase" || args[1] != "upload-certs" {
		return c.fail(1, "the simulator does not know kubeadm init %s", strings.Join(args, " "))
	}
	key := value(flags, "--certificate-key")
	if f := value(flags, "--config"); f != "" {
		cfg, err := c.readKubeadmConfig(f)
		if err != nil {
			return c.kubeadmError(err)
		}
		_, minor := c.kubeadmVersion()
		if cfg.cluster == nil {
			cfg.cluster = &clusterConfiguration{}
		}
		if _, err := clusterVersion(cfg.cluster, minor); err != nil {
			return c.kubeadmError(err)
		}
		if cfg.init != nil && cfg.init.CertificateKey != "" {
			key = cfg.init.CertificateKey
		}
	}
	if err := checkCertificateKey(key); err != nil {
		return c.kubeadmError(err)
	}
	if !has(flags, "--upload-certs", "--experimental-upload-certs") {
		c.printf("[upload-certs] Skipping phase. Please see --upload-certs\n")
		return 0
	}
	if err := c.phase("init", "upload-certs", 0); err != nil {
		return c.failed("upload-certs", err)
	}
	cl, problem := c.connectAs(adminConf)
	if problem != "" {
		return c.phaseError("upload-certs", fmt.Errorf("error uploading certs: error creating token: %s", problem))
	}
	if err := c.upload(cl, key, has(flags, "--skip-certificate-key-print")); err != nil {
		return c.phaseError("upload-certs", err)
	}
	return 0
}
