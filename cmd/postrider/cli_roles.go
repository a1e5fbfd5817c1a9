package main

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/alecthomas/kong"
	"golang.org/x/sync/errgroup"

	"github.com/postrider/postrider/internal/registry"
)

type (
	allCmd struct {
		Config `embed:""`
	}
	ingestCmd struct {
		Config `embed:""`
	}
	fanoutCmd struct {
		Config `embed:""`
	}
	deliverCmd struct {
		Config `embed:""`
	}
	controlCmd struct {
		Config `embed:""`
	}
	devCmd struct {
		Config `embed:""`
		Demo   bool `help:"Show what the gateway does: a tenant, three endpoints and real payloads."`
	}
)

// Run runs the role or roles that the command is named after.
func (c *Config) Run(ctx context.Context, parsed *kong.Context) error {
	return c.runChecked(ctx, roles(parsed.Selected().Name))
}

func (c *Config) runChecked(ctx context.Context, roles []string) error {
	if err := c.check(roles); err != nil {
		return err
	}
	return runRoles(ctx, c, roles)
}

// Run runs all roles, with keys from the data folder, and the demo beside them.
func (c *devCmd) Run(ctx context.Context, std streams) error {
	c.Embedded = true
	if err := c.loadKeys(std); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.runChecked(ctx, roles("dev")) })
	if c.Demo {
		group.Go(func() error {
			return newDemo(apiURL(c.Listen), c.AdminKey, newTerminal(std.out)).run(ctx)
		})
	}
	return group.Wait()
}

// Names of the files in the data folder.
const (
	adminKeyFile = "admin.key"
	sealKeyFile  = "seal.key"
)

// loadKeys takes the keys that were not given from the data folder, where the
// first start puts them.
func (c *devCmd) loadKeys(std streams) error {
	if err := os.MkdirAll(c.Dev.Data, 0o700); err != nil {
		return fmt.Errorf("data folder: %w", err)
	}
	if c.AdminKey == "" {
		key, err := keyInFile(filepath.Join(c.Dev.Data, adminKeyFile), func() (string, error) { return newAdminKey(), nil })
		if err != nil {
			return err
		}
		c.AdminKey = key
		_, _ = fmt.Fprintf(std.err, "Admin key (in %s): %s\n", filepath.Join(c.Dev.Data, adminKeyFile), key)
	}
	if c.SealKey == "" {
		key, err := keyInFile(filepath.Join(c.Dev.Data, sealKeyFile), registry.NewKeyset)
		if err != nil {
			return err
		}
		c.SealKey = key
	}
	return nil
}

func newAdminKey() string {
	var raw [24]byte
	_, _ = rand.Read(raw[:]) // never fails: it ends the process instead
	return "admin_" + base64.RawURLEncoding.EncodeToString(raw[:])
}

// keyInFile reads a key from a file; if there is none, it makes one and keeps it
// there, for nobody else to read.
func keyInFile(path string, fresh func() (string, error)) (string, error) {
	text, err := os.ReadFile(path) //nolint:gosec // the operator names the folder
	if err == nil {
		if key := strings.TrimSpace(string(text)); key != "" {
			return key, nil
		}
		return "", fmt.Errorf("key file %s: is empty", path)
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("key file: %w", err)
	}
	key, err := fresh()
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	// Written aside and linked: a file of that name is whole or not there.
	temp, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}
	defer func() { _ = os.Remove(temp.Name()) }()
	_, err = temp.WriteString(key + "\n")
	if err = errors.Join(err, temp.Sync(), temp.Close()); err == nil {
		err = os.Link(temp.Name(), path)
	}
	if err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}
	return key, nil
}

type sealKeyCmd struct {
	Rotate string `env:"POSTRIDER_SEAL_KEY" placeholder:"KEYSET" help:"A keyset in use: print it with a new primary key; what the old ones sealed still opens."`
	Retire bool   `help:"Print the keyset in use (of --rotate or the environment) with its newest key alone, when postrider reseal has left nothing sealed with the others."`
	Fresh  bool   `help:"Ignore the keyset of the environment and make a fresh one."`
}

// Run prints a keyset.
func (c *sealKeyCmd) Run(std streams) error {
	fresh := registry.NewKeyset
	switch inUse := c.Rotate != "" && !c.Fresh; {
	case c.Retire && !inUse:
		return errors.New("--retire: wants a keyset in use, in POSTRIDER_SEAL_KEY or --rotate")
	case c.Retire:
		fresh = func() (string, error) { return registry.RetireKeyset(c.Rotate) }
	case inUse:
		fresh = func() (string, error) { return registry.RotateKeyset(c.Rotate) }
	}
	keyset, err := fresh()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(std.out, keyset)
	return err
}
