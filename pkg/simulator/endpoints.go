package simulator

import (
	"net/http"
	"slices"
	"strings"

	"github.com/plunder-app/capplunder/pkg/plunder/wire"
)

// endpoint is a function of the API: what GET /api says of it, and what it does.
type endpoint struct {
	wire.Endpoint

	do func(*Server, *request) reply
}

// endpointTable lists the functions in the order in which the 2020 server names
// them (recording discovery).
func endpointTable() []endpoint {
	row := func(method, pattern, name, description string, do func(*Server, *request) reply) endpoint {
		path, _, _ := strings.Cut(pattern, "/{")
		return endpoint{wire.Endpoint{Name: name, Path: path, FunctionEndpoint: pattern, Description: description, Method: method}, do}
	}
	const (
		get, post, patch, del = http.MethodGet, http.MethodPost, http.MethodPatch, http.MethodDelete
		apiServer             = "Endpoint for interacting with the api server"
	)
	return []endpoint{
		row(get, "/config", "config", "Allows the retrieving of Plunder Server configuration", (*Server).getConfig),
		row(post, "/config", "config", "Allows the creation of Plunder Server configuration", (*Server).postConfig),
		row(post, "/config/boot/{id}", "configBoot", "Allows the creation of Plunder Server Boot configuration", (*Server).postBootConfig),
		row(del, "/config/boot/{id}", "configBoot", "Performs the deletion of Plunder Server Boot configuration", (*Server).deleteBootConfig),
		row(get, "/dhcp/{id}", "dhcp", "Allows the retrieval of DHCP information", (*Server).getDHCP),
		row(get, "/deployments", "deployments", "Allows the retrieving of Plunder Server deployments", (*Server).getDeployments),
		row(post, "/deployments", "deployments", "Allows the creation of Plunder Server deployments", (*Server).postDeployments),
		row(post, "/deployment", "deployment", "Allows the creation of a specific Plunder deployment", (*Server).postDeployment),
		row(patch, "/deployment", "deployment", "Allows the patching of a Plunder Server deployment", (*Server).patchDeployment),
		row(get, "/deployment/{id}", "deploymentID", "Allows the retrieval of specific information about a deployment", (*Server).getDeployment),
		row(patch, "/deployment/{id}", "deploymentID", "Allows the patching of Plunder Server deployments", (*Server).patchDeployment),
		row(del, "/deployment/{id}", "deploymentID", "Allows the deletion of a Plunder Server deployment", (*Server).deleteDeployment),
		row(del, "/deployment/mac/{id}", "deploymentMac", "Allows the deletion of a Plunder Server deployment based upon its MAC address", (*Server).deleteDeploymentMAC),
		row(del, "/deployment/address/{id}", "deploymentAddress", "Allows the deletion of a Plunder Server deployment based upon its network address", (*Server).deleteDeploymentAddress),
		row(post, "/parlay", "parlay", "Create a parlay automation deployment", (*Server).postParlay),
		row(get, "/parlay/logs/{id}", "parlayLog", "Retrieve the logs from a parlay deployment", (*Server).getLog),
		row(del, "/parlay/logs/{id}", "parlayLog", "Delete the cached logs from a specific parlay deployment", (*Server).deleteLog),
		row(get, "/api", "apis", apiServer, (*Server).getAPIs),
		row(get, "/api/{function}/{method}", "apiFunctions", apiServer, (*Server).getAPIFunction),
	}
}

// endpoints are those of a version. v0.5 has no PATCH /deployment, describes
// another one differently, and lists /api earlier.
func endpoints(version string) []endpoint {
	all := endpointTable()
	if version != VersionV05 {
		return all
	}
	all = slices.DeleteFunc(all, func(e endpoint) bool { return e.Name == "deployment" && e.Method == http.MethodPatch })
	for i := range all {
		if all[i].Name == "deploymentID" && all[i].Method == http.MethodPatch {
			all[i].Description = "Allows the retrieving of Plunder Server deployments"
		}
	}
	n := len(all)
	api := slices.Clone(all[n-2:])
	return slices.Insert(all[:n-2], 3, api...)
}

// match finds the endpoint for a request. known is false for a path that no
// endpoint has, whatever the method.
func match(table []endpoint, method, path string) (e *endpoint, vars map[string]string, known bool) {
	for i := range table {
		v, ok := matchPath(table[i].FunctionEndpoint, path)
		if !ok {
			continue
		}
		known = true
		if table[i].Method == method {
			return &table[i], v, true
		}
	}
	return nil, nil, known
}

func matchPath(pattern, path string) (map[string]string, bool) {
	want, got := strings.Split(pattern, "/"), strings.Split(path, "/")
	if len(want) != len(got) {
		return nil, false
	}
	vars := map[string]string{}
	for i := range want {
		switch {
		case strings.HasPrefix(want[i], "{") && got[i] != "":
			vars[strings.Trim(want[i], "{}")] = got[i]
		case want[i] != got[i]:
			return nil, false
		}
	}
	return vars, true
}
