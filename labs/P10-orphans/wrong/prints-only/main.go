// Prints a number and makes nothing.
package main

import (
	"fmt"
	"os"
)

func main() { fmt.Println("adopted", os.Getpid()+10) }
