package capi

import "reflect"

// clusterInput is a Cluster and where it was written.
type clusterInput struct {
	*Cluster
	in    *input
	infra string // name of its PlunderCluster, "" for none
}

// plunderClusterInput is a PlunderCluster and where it was written.
type plunderClusterInput struct {
	*PlunderCluster
	in *input
	by *clusterInput // the Cluster that refers to it
}

// cluster reads a Cluster (CAPI contract: cluster.x-k8s.io, all versions). Fields
// that are not ours stay in Object.
func (d *decoder) cluster(in *input) {
	meta, spec := in.at("metadata"), in.at("spec")
	network := spec.get("clusterNetwork")
	c := &Cluster{
		Key:           in.key,
		APIVersion:    in.apiVersion,
		Labels:        meta.get("labels").strMap(),
		Annotations:   meta.get("annotations").strMap(),
		PodCIDRs:      network.get("pods").get("cidrBlocks").strs(asWritten),
		ServiceCIDRs:  network.get("services").get("cidrBlocks").strs(asWritten),
		ServiceDomain: network.get("serviceDomain").checked(checkName),
		Endpoint:      endpoint(spec.get("controlPlaneEndpoint")),
		Paused:        spec.get("paused").boolean(),
		Origin:        in.origin,
	}
	if _, ok := c.Annotations[AnnotationPaused]; ok {
		c.Paused = true
	}
	c.Object = in.object()
	infra := d.reference(in, spec.get("infrastructureRef"), "PlunderCluster")
	d.clusters = append(d.clusters, &clusterInput{Cluster: c, in: in, infra: infra})
}

// asWritten is for values that are checked later, with others.
func asWritten(s string) (string, error) { return s, nil }

// endpoint reads {host, port}. The API server fills in "" and 0 where nothing was
// given (up to v1beta1), so these count as absent.
func endpoint(f field) Endpoint {
	e := Endpoint{Host: f.get("host").checked(checkHost), Port: f.get("port").port()}
	switch {
	case e.Host == "" && e.Port != 0 && f.get("host").str() == "":
		f.get("host").errorf("is required where a port is given")
	case e.Host != "" && e.Port == 0:
		e.Port = DefaultEndpointPort
	}
	return e
}

// plunderCluster reads a PlunderCluster. It is ours, so unknown fields are errors.
func (d *decoder) plunderCluster(in *input) {
	in.at().only("apiVersion", "kind", "metadata", "spec", "status")
	meta, spec := in.at("metadata"), in.at("spec")
	spec.only(fieldNames(reflect.TypeFor[PlunderClusterSpec]())...)
	spec.get("controlPlaneEndpoint").only("host", "port")
	c := &PlunderCluster{
		Key:         in.key,
		Annotations: meta.get("annotations").strMap(),
		Spec: PlunderClusterSpec{
			StaticMAC:            spec.get("staticMAC").parse(ParseMAC),
			StaticIP:             spec.get("staticIP").checked(checkIPv4),
			ControlPlaneMacPool:  macPool(spec.get("controlPlaneMacPool")),
			ControlPlaneEndpoint: endpoint(spec.get("controlPlaneEndpoint")),
		},
		Origin: in.origin,
	}
	d.installOptions(spec, &c.Spec.InstallOptions)
	readOptions(spec, &c.Spec.ClusterOptions)
	reportOptions(spec, c.Spec.ClusterOptions.Problems())
	c.Spec.CertSANs = withoutEmpty(c.Spec.CertSANs)
	c.Object = in.object()
	d.plunderClusters = append(d.plunderClusters, &plunderClusterInput{PlunderCluster: c, in: in})
}

// macPool reads a list of MACs, each once.
func macPool(f field) []string {
	first := map[string]int{}
	var pool []string
	for _, item := range f.items() {
		mac := item.parse(ParseMAC)
		if mac == "" {
			item.required("")
			continue
		}
		if line, ok := first[mac]; ok {
			item.errorf("the MAC address %s is in this list twice, first on line %d", mac, line)
			continue
		}
		first[mac] = item.line
		pool = append(pool, mac)
	}
	return pool
}
