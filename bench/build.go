package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// build makes the gateway's binary in dir and returns its path.
func build(ctx context.Context, dir string) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	binary := filepath.Join(dir, "postrider")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/postrider") //nolint:gosec // arguments of our own
	cmd.Dir = filepath.Dir(strings.TrimSpace(string(out)))
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the gateway: %w\n%s", err, text)
	}
	return binary, nil
}

// newSealKey has the binary make the keyset that its roles share.
func newSealKey(ctx context.Context, binary string) (string, error) {
	out, err := exec.CommandContext(ctx, binary, "seal-key", "--fresh").Output()
	if err != nil {
		return "", fmt.Errorf("make a seal key: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// profile takes profiles of the first process, the only one of a gateway that is
// shared, into files named after the measurement: of CPU, of what is allocated and
// of locks that are waited for. It blocks for the given time.
func (g *gateway) profile(ctx context.Context, folder, name string, d time.Duration) error {
	r := g.roles[0]
	group, ctx := errgroup.WithContext(ctx)
	for kind, path := range map[string]string{"cpu": "profile", "allocs": "allocs", "mutex": "mutex"} {
		file := filepath.Join(folder, fmt.Sprintf("%s-%s-%s.%s.pprof", g.backend, r.name, strings.ReplaceAll(name, "/", "-"), kind))
		url := fmt.Sprintf("http://%s/debug/pprof/%s?seconds=%d", r.pprof, path, max(1, int(d.Seconds())))
		group.Go(func() error { return download(ctx, url, file) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("profile %s: %w", r.name, err)
	}
	return nil
}

func download(ctx context.Context, url, file string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // nothing depends on how it closes
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o750); err != nil {
		return err
	}
	out, err := os.Create(file) //nolint:gosec // the user names the folder
	if err != nil {
		return err
	}
	_, err = io.Copy(out, resp.Body)
	return errors.Join(err, out.Close())
}
