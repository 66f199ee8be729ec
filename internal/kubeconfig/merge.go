// Package kubeconfig puts the way into a new cluster into a person's kubeconfig
// files, beside what is there. It must not open connections, and it never removes
// an entry.
package kubeconfig

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// Options change what Merge does.
type Options struct {
	// Files are the person's kubeconfig files, in order of precedence. Entries that are
	// new go into the first that exists, or the last, as kubectl does it.
	Files []string
	// Overwrite replaces entries of the same names that say something else.
	Overwrite bool
	// UseContext makes the context the current one.
	UseContext bool
}

// Result is what Merge did.
type Result struct {
	Context  string   // the name of the context
	Added    []string // `context "x"`, ...
	Replaced []string // likewise
	Files    []string // that were written; none when everything was there
}

// ConflictError says that entries of the same names say something else.
type ConflictError struct{ Entries []string } // `cluster "x" in /home/ann/.kube/config`

// Error implements error.
func (e *ConflictError) Error() string {
	return strings.Join(e.Entries, ", ") + ": there already, and different"
}

// Files are the kubeconfig files that kubectl would use, in order of precedence:
// explicit alone, or those of KUBECONFIG, or ~/.kube/config.
func Files(explicit string, getenv func(string) string) ([]string, error) {
	if explicit != "" {
		return []string{explicit}, nil
	}
	var files []string
	for _, path := range filepath.SplitList(getenv(clientcmd.RecommendedConfigPathEnvVar)) {
		if path != "" && !slices.Contains(files, path) {
			files = append(files, path)
		}
	}
	if len(files) > 0 {
		return files, nil
	}
	home := getenv("HOME")
	if home == "" {
		home = getenv("USERPROFILE") // Windows
	}
	if home == "" {
		return nil, errors.New("no place for a kubeconfig: neither KUBECONFIG nor HOME is set")
	}
	return []string{filepath.Join(home, clientcmd.RecommendedHomeDir, clientcmd.RecommendedFileName)}, nil
}

// Merge adds the current context of the kubeconfig data to a person's files, with
// the names that Cluster API gives them: cluster NAME, user NAME-admin, context
// NAME-admin@NAME. Run again it writes nothing. Entries of these names that say
// something else are a *ConflictError, and nothing is written then.
//
// client-go's ModifyConfig is not used: it takes what was added to the files since
// they were read for something to remove, and it truncates a file before it writes.
func Merge(ctx context.Context, name string, data []byte, o Options) (Result, error) {
	entry, err := entryOf(name, data)
	if err != nil {
		return Result{}, err
	}
	unlock, err := lock(ctx, o.Files)
	if err != nil {
		return Result{}, err
	}
	defer unlock()
	files, err := load(o.Files)
	if err != nil {
		return Result{}, err
	}
	res, err := merge(files, entry, o)
	if err != nil {
		return Result{}, err
	}
	for _, f := range files {
		if !f.changed {
			continue
		}
		if err := f.write(); err != nil {
			return Result{}, fmt.Errorf("kubeconfig: %w", err)
		}
		res.Files = append(res.Files, f.path)
	}
	return res, nil
}

// entry is one way into one cluster.
type entry struct {
	cluster, user, context string
	config                 *api.Config // with these three and nothing else
}

// entryOf is the current context of a kubeconfig, renamed after the cluster.
func entryOf(name string, data []byte) (entry, error) {
	config, err := clientcmd.Load(data)
	if err != nil {
		// The cause may quote the file, which holds a key.
		return entry{}, errors.New("what is recorded is no kubeconfig")
	}
	from := config.Contexts[config.CurrentContext]
	if from == nil || config.Clusters[from.Cluster] == nil || config.AuthInfos[from.AuthInfo] == nil {
		return entry{}, errors.New("the recorded kubeconfig has no current context with a cluster and a user")
	}
	cluster, user := config.Clusters[from.Cluster], config.AuthInfos[from.AuthInfo]
	switch {
	case user.Exec != nil || user.AuthProvider != nil:
		return entry{}, errors.New("the recorded kubeconfig runs a program to log in: look at it and use it as a file of its own")
	case cluster.CertificateAuthority != "" || user.ClientCertificate != "" || user.ClientKey != "" || user.TokenFile != "":
		return entry{}, errors.New("the recorded kubeconfig refers to files: use it where those are")
	}
	e := entry{cluster: name, user: name + "-admin", context: name + "-admin@" + name, config: api.NewConfig()}
	e.config.Clusters[e.cluster] = cluster
	e.config.AuthInfos[e.user] = user
	e.config.Contexts[e.context] = &api.Context{Cluster: e.cluster, AuthInfo: e.user, Namespace: from.Namespace}
	return e, nil
}

// merge changes the files in memory.
func merge(files []*file, e entry, o Options) (Result, error) {
	res := Result{Context: e.context}
	home := destination(files)
	var conflicts []string
	for _, part := range []struct {
		kind, name string
		only       func(*api.Config) *api.Config // the entry alone, nil when it is not there
		set        func(*api.Config)
	}{
		{
			"cluster", e.cluster,
			func(c *api.Config) *api.Config {
				return alone(c.Clusters[e.cluster] != nil, func(x *api.Config) { x.Clusters[e.cluster] = c.Clusters[e.cluster] })
			},
			func(c *api.Config) { c.Clusters[e.cluster] = e.config.Clusters[e.cluster] },
		},
		{
			"user", e.user,
			func(c *api.Config) *api.Config {
				return alone(c.AuthInfos[e.user] != nil, func(x *api.Config) { x.AuthInfos[e.user] = c.AuthInfos[e.user] })
			},
			func(c *api.Config) { c.AuthInfos[e.user] = e.config.AuthInfos[e.user] },
		},
		{
			"context", e.context,
			func(c *api.Config) *api.Config {
				return alone(c.Contexts[e.context] != nil, func(x *api.Config) { x.Contexts[e.context] = c.Contexts[e.context] })
			},
			func(c *api.Config) { c.Contexts[e.context] = e.config.Contexts[e.context] },
		},
	} {
		text := fmt.Sprintf("%s %q", part.kind, part.name)
		// The first file that has an entry is the one that counts.
		i := slices.IndexFunc(files, func(f *file) bool { return part.only(f.config) != nil })
		if i < 0 {
			part.set(home.config)
			home.changed = true
			res.Added = append(res.Added, text)
			continue
		}
		same, err := equal(part.only(files[i].config), part.only(e.config))
		switch {
		case err != nil:
			return Result{}, err
		case same:
		case !o.Overwrite:
			conflicts = append(conflicts, text+" in "+files[i].path)
		default:
			part.set(files[i].config)
			files[i].changed = true
			res.Replaced = append(res.Replaced, text)
		}
	}
	if len(conflicts) > 0 {
		return Result{}, &ConflictError{conflicts}
	}
	if o.UseContext {
		f := home
		if i := slices.IndexFunc(files, func(f *file) bool { return f.config.CurrentContext != "" }); i >= 0 {
			f = files[i]
		}
		if f.config.CurrentContext != e.context {
			f.config.CurrentContext, f.changed = e.context, true
		}
	}
	return res, nil
}

func alone(there bool, set func(*api.Config)) *api.Config {
	if !there {
		return nil
	}
	c := api.NewConfig()
	set(c)
	return c
}

// equal compares as kubeconfig files say it.
func equal(a, b *api.Config) (bool, error) {
	x, err := clientcmd.Write(*a)
	if err != nil {
		return false, fmt.Errorf("kubeconfig: %w", err)
	}
	y, err := clientcmd.Write(*b)
	if err != nil {
		return false, fmt.Errorf("kubeconfig: %w", err)
	}
	return bytes.Equal(x, y), nil
}

// destination is the file for new entries.
func destination(files []*file) *file {
	for _, f := range files {
		if f.exists {
			return f
		}
	}
	return files[len(files)-1]
}
