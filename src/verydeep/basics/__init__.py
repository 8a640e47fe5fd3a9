"""What every floor needs: errors, atomic files, chance, progress, the machine's description."""
