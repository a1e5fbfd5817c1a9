package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/alecthomas/kong"
)

// minAdminKey is the shortest admin key that a role starts with, in characters.
const minAdminKey = 16

// source says where a setting's value comes from.
type source string

const (
	fromDefault     source = "default"
	fromFlag        source = "flag"
	fromEnvironment source = "environment"
	fromFile        source = "file"
)

// defaultVars are the defaults that differ between dev and the other roles, as
// the other roles have them.
func defaultVars() kong.Vars {
	host, err := os.Hostname()
	if err != nil {
		host = ""
	}
	return kong.Vars{
		"listen": ":8080", "log_format": "json", "events_partitions": "32", "deliveries_partitions": "64",
		"egress_allow_cidr": "", "hostname": host, "min_admin_key": strconv.Itoa(minAdminKey),
	}
}

// devVars are the same defaults as dev has them.
func devVars() kong.Vars {
	return kong.Vars{
		"listen": "127.0.0.1:8080", "log_format": "text", "events_partitions": "8", "deliveries_partitions": "8",
		"egress_allow_cidr": "127.0.0.0/8,::1/128",
	}
}

// roles returns the roles that a command runs; nil if it runs none.
func roles(command string) []string {
	all := []string{"ingest", "fanout", "deliver", "control"}
	switch {
	case command == "all" || command == "dev":
		return all
	case slices.Contains(all, command):
		return []string{command}
	}
	return nil
}

// isRole reports whether the node is a command with a Config.
func isRole(node *kong.Node) bool { return node.Name == "config" || len(roles(node.Name)) > 0 }

// applies reports whether a setting has an effect on a command.
func applies(flag *kong.Flag, command string) bool {
	for user := range strings.SplitSeq(flag.Tag.Get("for"), ",") {
		switch user {
		case "":
			return true
		case "cluster":
			if command != "dev" {
				return true
			}
		default:
			if user == command || slices.Contains(roles(command), user) {
				return true
			}
		}
	}
	return command == "config"
}

// fitRoles gives dev its defaults and leaves out of a role's help what it has no
// use for.
func fitRoles(k *kong.Kong) error {
	for _, node := range k.Model.Children {
		if !isRole(node) {
			continue
		}
		for _, flag := range node.Flags {
			flag.Hidden = flag.Hidden || !applies(flag, node.Name)
			if node.Name == "dev" {
				flag.Tag.Vars = flag.Tag.Vars.CloneWith(devVars())
			}
		}
	}
	return nil
}

// provenance says for each flag of the node where its value comes from.
func provenance(ctx *kong.Context, node *kong.Node) map[string]source {
	from := make(map[string]source, len(node.Flags))
	for _, flag := range node.Flags {
		from[flag.Name] = fromDefault
		if envOf(flag) != "" {
			from[flag.Name] = fromEnvironment
		}
	}
	for _, path := range ctx.Path {
		switch {
		case path.Flag == nil || !slices.Contains(node.Flags, path.Flag):
		case path.Resolved:
			from[path.Flag.Name] = fromFile
		default:
			from[path.Flag.Name] = fromFlag
		}
	}
	return from
}

const envPrefix = "POSTRIDER_"

// ofKubernetes are the variables that Kubernetes sets in each pod for a Service
// whose name begins with ours.
var ofKubernetes = regexp.MustCompile(`_SERVICE_(HOST|PORT)(_|$)|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?$`)

// unknownVariables returns the names of the environment, as NAME=value, that have
// our prefix and belong to no flag of any command: misspelt settings, most likely.
func unknownVariables(app *kong.Node, environ []string) (names []string) {
	known := map[string]bool{}
	_ = kong.Visit(app, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			for _, name := range flag.Envs {
				known[name] = true
			}
		}
		return next(nil)
	})
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, envPrefix) && !known[name] && !ofKubernetes.MatchString(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// AfterApply refuses settings that this command would not heed: a flag of
// another role, and for dev, whatever says how to reach a Kafka or a Redis. (The
// environment and the file may be shared between roles.)
func (c *Config) AfterApply(ctx *kong.Context) error {
	node := ctx.Selected()
	c.Provenance = provenance(ctx, node)
	c.Unknown = unknownVariables(ctx.Model.Node, os.Environ())
	for _, flag := range node.Flags {
		from := c.Provenance[flag.Name]
		if from == fromDefault || applies(flag, node.Name) {
			continue
		}
		if node.Name == "dev" {
			return fmt.Errorf("--%s (from the %s) is nothing to dev, which runs its own Kafka and Redis; use postrider all", flag.Name, from)
		}
		if from == fromFlag {
			return fmt.Errorf("--%s has no effect on %s, it is for %s", flag.Name, node.Name, flag.Tag.Get("for"))
		}
	}
	return nil
}
