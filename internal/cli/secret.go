package cli

import (
	"context"
	"errors"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/plunder-app/capplunder/pkg/capi"
	"github.com/plunder-app/capplunder/pkg/crd"
	"github.com/plunder-app/capplunder/pkg/install"
	"github.com/plunder-app/capplunder/pkg/kube"
	"github.com/plunder-app/capplunder/pkg/plunder"
)

// secretKey reads the value of --plunder-secret; a name alone is one in the namespace
// of capplunder's own.
func secretKey(s string) (capi.Key, error) {
	key := capi.ParseKey(s, crd.Namespace)
	if len(validation.IsDNS1123Label(key.Namespace)) > 0 || len(validation.IsDNS1123Subdomain(key.Name)) > 0 {
		return key, usagef(nil, "--plunder-secret %q: want NAMESPACE/NAME, for example %s/%s", s, crd.Namespace, install.SecretName)
	}
	return key, nil
}

// plunderSecret is the secret that the configuration of the plunder client is to be read
// from, or nil if that is in a file. Of file and secret the one counts that was said
// closer to the command line; on a par neither does.
func (f *factory) plunderSecret() (*capi.Key, error) {
	if f.opts.plunderSecret == "" {
		return nil, nil //nolint:nilnil // no secret is an answer
	}
	key, err := secretKey(f.opts.plunderSecret)
	if err != nil || f.opts.plunderConfig == "" {
		return &key, err
	}
	secret, file := f.source("plunder-secret"), f.source("plunder-config")
	switch a, b := closeness(secret), closeness(file); {
	case a == b:
		return nil, usagef(nil, "both a secret (%s) and a file (%s) with the configuration of the plunder client are given: leave one out", secret, file)
	case a < b:
		return nil, nil //nolint:nilnil // likewise
	}
	return &key, nil
}

// closeness orders sources of settings: flag, environment, configuration file.
func closeness(source string) int {
	switch {
	case strings.HasPrefix(source, "flag "):
		return 2
	case strings.HasPrefix(source, envPrefix):
		return 1
	}
	return 0
}

// readSecret reads the configuration of the plunder client from a secret.
func (f *factory) readSecret(ctx context.Context, key capi.Key) (plunder.Config, error) {
	target, err := f.target()
	if err != nil {
		return plunder.Config{}, failing(err)
	}
	client, err := kube.Dial(target)
	if err != nil {
		return plunder.Config{}, failing(err)
	}
	data, err := install.ReadSecret(ctx, client, key)
	var none *install.RefusedError
	switch {
	case errors.As(err, &none):
		return plunder.Config{}, usagef(nil, "%w", err)
	case errors.Is(err, capi.ErrUnavailable):
		return plunder.Config{}, nextError{failing(err), f.commandLine()}
	case err != nil:
		return plunder.Config{}, failing(err)
	}
	cfg, err := plunder.ParseConfig(data, "secret "+key.String())
	if err != nil {
		return cfg, usagef(nil, "%w", err)
	}
	return cfg, nil
}
