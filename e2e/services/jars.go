package services

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// kafkaVersion is the version in pom.xml; it names the cache folder.
const kafkaVersion = "4.1.0"

// JarsEnv names the environment variable of a folder that has Kafka's jars
// already; then nothing is fetched.
const JarsEnv = "POSTRIDER_KAFKA_JARS"

//go:embed pom.xml
var pom []byte

// jars returns the folder with the broker's jars; the first call on a machine
// fetches them (about 100 MB) into the user's cache folder.
func jars(ctx context.Context) (string, error) {
	if dir := os.Getenv(JarsEnv); dir != "" {
		if _, err := os.Stat(dir); err != nil { //nolint:gosec // the operator names the folder
			return "", fmt.Errorf("%s: %w", JarsEnv, err)
		}
		return dir, nil
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	dir := filepath.Join(cache, "postrider", "kafka-"+kafkaVersion)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	return dir, fetchJars(ctx, dir)
}

// fetchJars fills a temporary folder and renames it: dir is complete or absent,
// also when several tests fetch at the same time.
func fetchJars(ctx context.Context, dir string) error {
	if _, err := exec.LookPath("mvn"); err != nil {
		return errors.New("no mvn to fetch Kafka with")
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o750); err != nil {
		return fmt.Errorf("make cache folder: %w", err)
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), "fetch-")
	if err != nil {
		return fmt.Errorf("make cache folder: %w", err)
	}
	defer os.RemoveAll(tmp) //nolint:errcheck // what is left is only in the way
	file := filepath.Join(tmp, "pom.xml")
	if err := os.WriteFile(file, pom, 0o600); err != nil {
		return fmt.Errorf("write pom: %w", err)
	}
	got := filepath.Join(tmp, "jars")
	err = run(ctx, "mvn", "-q", "-B", "-f", file, "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory="+got)
	if err != nil {
		return fmt.Errorf("fetch Kafka: %w", err)
	}
	if err := os.Rename(got, dir); err != nil {
		if _, there := os.Stat(dir); there == nil {
			return nil // another process was faster
		}
		return fmt.Errorf("keep Kafka's jars: %w", err)
	}
	return nil
}
