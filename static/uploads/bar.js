/* Moves jQuery UI's progressbar by a transform: its transition needs no layout for each frame. */
$.widget('ui.progressbar', $.ui.progressbar, {
  _refreshValue() {
    this._super();
    this.valueDiv.css({width: '', transform: `translateX(${this._percentage() - 100}%)`});
  },
});
