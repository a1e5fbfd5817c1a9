//go:build !unix

package broker

import (
	"errors"
	"os"
)

// errInUse says that another process has the data folder.
var errInUse = errors.New("in use by another process")

// lockFile keeps the file open; systems without flock refuse to remove an open
// file, which shows that it is in use.
func lockFile(path string) (unlock func() error, err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, errors.Join(errInUse, err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	return f.Close, nil
}
