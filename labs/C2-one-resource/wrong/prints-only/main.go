// Reads the file itself, and makes nothing.
package main

import (
	"fmt"
	"os"
)

func main() {
	line, _ := os.ReadFile("/proc/version")
	fmt.Printf("descriptor 3: %s", line)
}
