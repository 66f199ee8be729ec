package cli

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"
)

// envPrefix starts the names of environment variables: --os-timeout is CAPPLUNDER_OS_TIMEOUT.
const envPrefix = "CAPPLUNDER_"

// setting is one thing that can be set by flag, environment or configuration
// file, in this order of precedence.
type setting struct {
	Name   string `json:"name"`
	Value  string `json:"value"`
	Source string `json:"source"` // "flag --x", "CAPPLUNDER_X", a file name, or "default"
	Env    string `json:"env"`
}

// notConfigurable are flags of settingFlags that only make sense on a command line.
func notConfigurable(flag string) bool { return flag == "config" || flag == "help" }

// settingFlags has every flag that can also be set by environment or file, with
// its default. The values of a real command are in its own flags.
func settingFlags() *pflag.FlagSet {
	fs := pflag.NewFlagSet("settings", pflag.ContinueOnError)
	new(globals).addFlags(fs)
	new(namespaceOptions).addFlags(fs)
	new(limits).addFlags(fs)
	new(limits).addApplyFlags(fs)
	new(limits).addDeleteFlags(fs)
	new(installFlags).addFlags(fs)
	return fs
}

func envName(flag string) string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// resolve gives every flag of cmd that was not typed its value from the
// environment or the configuration file. Beyond this function nobody knows where
// a value came from.
func (f *factory) resolve(cmd *cobra.Command) error {
	known := settingFlags()
	file, err := f.configFile(cmd)
	if err != nil {
		return err
	}
	v := viper.New()
	if file != "" {
		if err := readConfigFile(v, file, known); err != nil {
			return err
		}
	}
	inFile := map[string]bool{}
	for _, key := range v.AllKeys() {
		inFile[key] = true
	}
	fromEnv := f.settingsFromEnv(known)
	if err := v.MergeConfigMap(fromEnv); err != nil {
		return usagef(nil, "environment: %w", err)
	}

	var problems []error
	f.settings = nil
	known.VisitAll(func(fl *pflag.Flag) {
		if notConfigurable(fl.Name) {
			return
		}
		s := setting{Name: fl.Name, Value: valueText(fl), Source: "default", Env: envName(fl.Name)}
		own := cmd.Flags().Lookup(fl.Name)
		switch {
		case own != nil && own.Changed:
			s.Value, s.Source = valueText(own), "flag --"+fl.Name
		case fromEnv[fl.Name] != nil, inFile[fl.Name]:
			s.Value, s.Source = settingText(v, fl.Name), file
			if fromEnv[fl.Name] != nil {
				s.Source = s.Env
			}
			// The scratch flag checks settings of other commands as well.
			target := fl
			if own != nil {
				target = own
			}
			if err := target.Value.Set(s.Value); err != nil {
				problems = append(problems, usagef(nil, "%s: %s: invalid value %q: %w", s.Source, fl.Name, s.Value, err))
			} else {
				s.Value = valueText(target)
			}
		}
		s.Value = withoutPassword(s.Value)
		if !fl.Hidden || s.Source != "default" {
			f.settings = append(f.settings, s)
		}
	})
	return errors.Join(problems...)
}

// valueText is a flag's value as the environment would give it.
func valueText(fl *pflag.Flag) string {
	if list, ok := fl.Value.(pflag.SliceValue); ok {
		return strings.Join(list.GetSlice(), ",")
	}
	return fl.Value.String()
}

// settingText is a setting as a flag takes it: a list is one text, with commas.
func settingText(v *viper.Viper, name string) string {
	if list, ok := v.Get(name).([]any); ok {
		texts := make([]string, len(list))
		for i, item := range list {
			texts[i] = fmt.Sprint(item)
		}
		return strings.Join(texts, ",")
	}
	return v.GetString(name)
}

// settingsFromEnv reads CAPPLUNDER_* and warns of those that mean nothing.
func (f *factory) settingsFromEnv(known *pflag.FlagSet) map[string]any {
	values := map[string]any{}
	names := map[string]bool{envPrefix + "CONFIG": true}
	known.VisitAll(func(fl *pflag.Flag) {
		names[envName(fl.Name)] = true
		if value, ok := f.env[envName(fl.Name)]; ok && value != "" && !notConfigurable(fl.Name) {
			values[fl.Name] = value
		}
	})
	for _, key := range slices.Sorted(maps.Keys(f.env)) {
		if strings.HasPrefix(key, envPrefix) && !names[key] {
			f.warnf("environment variable %s is unknown and was ignored%s", key, didYouMean(key, names))
		}
	}
	return values
}

// configFile is the configuration file to read, "" when there is none.
func (f *factory) configFile(cmd *cobra.Command) (string, error) {
	file, by := f.opts.configFile, "--config"
	if fl := cmd.Flags().Lookup("config"); fl == nil || !fl.Changed {
		file, by = f.getenv(envPrefix+"CONFIG"), envPrefix+"CONFIG"
	}
	if file != "" {
		if _, err := os.Stat(file); err != nil {
			return "", usagef(nil, "%s: %w", by, err)
		}
		return file, nil
	}
	dir := f.getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) {
		home := f.getenv("HOME")
		if home == "" {
			return "", nil
		}
		dir = filepath.Join(home, ".config")
	}
	file = filepath.Join(dir, name, "config.yaml")
	_, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return "", nil
	case err != nil:
		return "", usagef(nil, "configuration file: %w", err)
	}
	return file, nil
}

// readConfigFile reads file into v and refuses settings that do not exist.
func readConfigFile(v *viper.Viper, file string, known *pflag.FlagSet) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return usagef(nil, "configuration file: %w", err)
	}
	v.SetConfigType("yaml")
	if err := v.ReadConfig(bytes.NewReader(data)); err != nil {
		return usagef(nil, "configuration file %s: %w", file, err)
	}
	names := map[string]bool{}
	known.VisitAll(func(fl *pflag.Flag) {
		if !notConfigurable(fl.Name) {
			names[fl.Name] = true
		}
	})
	var problems []error
	for _, key := range slices.Sorted(slices.Values(v.AllKeys())) {
		if !names[key] {
			problems = append(problems, usagef(nil, "configuration file %s: unknown setting %q%s", file, key, didYouMean(key, names)))
		}
	}
	if len(problems) > 0 {
		return &usageError{err: fmt.Errorf("%w", errors.Join(problems...)), next: name + " config view"}
	}
	return nil
}
