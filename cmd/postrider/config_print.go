package main

import (
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"
)

// configCmd prints the effective configuration.
type configCmd struct {
	Config `embed:""`
}

// Run prints one key a line, with where its value comes from. The output is a
// configuration file but for secrets, which stand there as comments.
func (c *configCmd) Run(ctx *kong.Context) error {
	if err := printConfig(ctx.Stdout, ctx.Selected().Flags, c.Provenance); err != nil {
		return err
	}
	for _, name := range c.Unknown {
		if _, err := fmt.Fprintf(ctx.Stdout, "# %s: no setting, from the %s\n", name, fromEnvironment); err != nil {
			return err
		}
	}
	return nil
}

func printConfig(w io.Writer, flags []*kong.Flag, from map[string]source) error {
	for _, flag := range flags {
		if flag.Name == "config" || flag.Name == "help" {
			continue
		}
		value := flag.Target.Interface()
		if _, err := fmt.Fprintln(w, configLine(flag, value, from[flag.Name])); err != nil {
			return err
		}
	}
	return nil
}

func configLine(flag *kong.Flag, value any, from source) string {
	set := !reflect.ValueOf(value).IsZero()
	if flag.Tag.Has("secret") {
		state := "not set"
		if set {
			state = "hidden, from the " + string(from)
		}
		return fmt.Sprintf("# %s: (%s)", flag.Name, state)
	}
	if (flag.Name == "redis-url" || flag.Name == "egress-proxy") && set {
		value = hidden(fmt.Sprint(value))
	}
	text, err := yaml.Marshal(plainValue(value))
	if err != nil {
		text = fmt.Append(nil, value)
	}
	return fmt.Sprintf("%s: %s # %s", flag.Name, strings.TrimSuffix(string(text), "\n"), from)
}

// plainValue returns the value as the file would have it: lists as one text
// with commas, durations and sizes as text.
func plainValue(value any) any {
	if text, ok := value.(fmt.Stringer); ok {
		return text.String()
	}
	if list := reflect.ValueOf(value); list.Kind() == reflect.Slice {
		items := make([]string, list.Len())
		for i := range items {
			items[i] = fmt.Sprint(list.Index(i).Interface())
		}
		return strings.Join(items, ",")
	}
	return value
}
