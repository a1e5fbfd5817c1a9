package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"
)

// maxConfigFile bounds the configuration file, in bytes.
const maxConfigFile = 1 << 20

// configFile is the flag that names the configuration file.
type configFile string

// BeforeResolve reads the file and lets its values stand in for flags that are
// given neither on the command line nor in the environment.
func (configFile) BeforeResolve(ctx *kong.Context, trace *kong.Path) error {
	path := fmt.Sprint(ctx.FlagValue(trace.Flag))
	if path == "" {
		return nil
	}
	values, err := readConfigFile(path)
	if err != nil {
		return err
	}
	ctx.AddResolver(&fileResolver{path: path, values: values})
	return nil
}

func readConfigFile(path string) (map[string]string, error) {
	f, err := os.Open(path) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxConfigFile+1))
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(text) > maxConfigFile {
		return nil, fmt.Errorf("configuration %s: more than %s", path, byteSize(maxConfigFile))
	}
	values, err := parseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("configuration %s: %w", path, err)
	}
	return values, nil
}

// parseConfig returns the values of a YAML document by flag name. Maps are
// joined to flat names (kafka: {brokers: …} is kafka-brokers), "_" is "-", lists
// become texts with commas, and null is an absent value.
func parseConfig(text []byte) (map[string]string, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	values := map[string]string{}
	if len(doc.Content) == 0 { // nothing, or comments only
		return values, nil
	}
	root := doc.Content[0]
	if root.Tag == "!!null" {
		return values, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("line %d: want keys with values", root.Line)
	}
	return values, flatten("", root, values)
}

func flatten(prefix string, node *yaml.Node, into map[string]string) error {
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		name := prefix + strings.ReplaceAll(key.Value, "_", "-")
		if value.Kind == yaml.MappingNode {
			if err := flatten(name+"-", value, into); err != nil {
				return err
			}
			continue
		}
		text, err := scalarText(value)
		if err != nil {
			return fmt.Errorf("line %d: %s: %w", value.Line, name, err)
		}
		if _, twice := into[name]; twice {
			return fmt.Errorf("line %d: %s is given twice", key.Line, name)
		}
		if value.Tag != "!!null" {
			into[name] = text
		}
	}
	return nil
}

// scalarText returns a value as one would write it behind its flag.
func scalarText(node *yaml.Node) (string, error) {
	switch node.Kind {
	case yaml.ScalarNode:
		return node.Value, nil
	case yaml.SequenceNode:
		items := make([]string, 0, len(node.Content))
		for _, item := range node.Content {
			if item.Kind != yaml.ScalarNode || strings.Contains(item.Value, ",") {
				return "", fmt.Errorf("line %d: want a text without comma", item.Line)
			}
			items = append(items, item.Value)
		}
		return strings.Join(items, ","), nil
	default:
		return "", errors.New("want a text, a number or a list")
	}
}

// fileResolver gives flags the values of the file.
type fileResolver struct {
	path   string
	values map[string]string
}

// Validate implements kong.Resolver: a key that is no setting is an error.
func (r *fileResolver) Validate(app *kong.Application) error {
	known := map[string]bool{}
	for _, node := range app.Children {
		if isRole(node) {
			for _, flag := range node.Flags {
				known[flag.Name] = true
			}
		}
	}
	for name := range r.values {
		if !known[name] || name == "config" || name == "help" {
			return fmt.Errorf("configuration %s: unknown key %q", r.path, name)
		}
	}
	return nil
}

// Resolve implements kong.Resolver.
func (r *fileResolver) Resolve(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
	value, ok := r.values[flag.Name]
	if !ok || envOf(flag) != "" {
		return nil, nil
	}
	return value, nil
}

// envOf returns the name of the environment variable that sets the flag, "" if
// none does.
func envOf(flag *kong.Flag) string {
	for _, name := range flag.Envs {
		if _, ok := os.LookupEnv(name); ok {
			return name
		}
	}
	return ""
}
